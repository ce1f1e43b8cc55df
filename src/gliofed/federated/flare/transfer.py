"""Files between server and site over FLARE's own connection, in chunks: neither side holds one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nvflare.apis.signal import Signal
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.streaming.download_service import Consumer, download_object
from nvflare.fuel.f3.streaming.file_downloader import FileDownloadable
from nvflare.fuel.f3.streaming.obj_downloader import ObjectDownloader
from nvflare.fuel.utils.memory_utils import try_malloc_trim

from gliofed.errors import TransferError

CHUNK: Final = 2**24
"""Bytes a request asks for."""
REQUEST_SECONDS: Final = 30.0
"""How long one chunk may take before it is asked for again."""
_POLL_SECONDS: Final = 0.2
_SWEEP: Final = 2**26
"""Bytes that pass between two sweeps."""


class _ChunkCleanup:
    """Lets go of the chunks that have passed.

    FLARE leaves each in a cycle of references, which Python looks for too seldom: without this, a
    process comes to hold a model for every site that it has sent one to.
    """

    def __init__(self) -> None:
        self._lock, self._passed, self._begun = threading.Lock(), 0, False

    def begin(self) -> None:
        """Before the first transfer: what is there by now stays, and need not be looked through."""
        with self._lock:
            if not self._begun:
                gc.collect()
                gc.freeze()
                self._begun = True

    def after(self, size: int) -> None:
        """Hear that a chunk of so many bytes has passed."""
        with self._lock:
            self._passed += size
            if self._passed < _SWEEP:
                return
            self._passed = 0
            gc.collect()

    def all(self) -> None:
        """Do so now, and hand what is free back to the system; takes tens of milliseconds."""
        with self._lock:
            self._passed = 0
            gc.collect()
        try_malloc_trim()


_sweep: Final = _ChunkCleanup()


def release_memory() -> None:
    """Hand the memory of all that has passed back; for a moment in which others work."""
    _sweep.all()


class _OfferedFile(FileDownloadable):  # type: ignore[misc]  # (FLARE has no types)
    def produce(self, state: dict[str, Any], requester: str) -> tuple[str, Any, dict[str, Any]]:
        found: tuple[str, Any, dict[str, Any]] = super().produce(state, requester)
        _sweep.after(len(found[1] or b""))
        return found


class FileOffer:
    """A file that named cells may fetch until it is withdrawn."""

    def __init__(self, cell: Cell, path: Path, receivers: int, seconds: float) -> None:
        """receivers: how many fetch it. seconds: kept for, without anybody asking for a chunk."""
        _sweep.begin()
        self._downloader = ObjectDownloader(cell, timeout=seconds, num_receivers=receivers)
        self.source: str = cell.get_fqcn()
        self.ref: str = self._downloader.add_object(_OfferedFile(str(path), chunk_size=CHUNK))
        self.size = path.stat().st_size

    def withdraw(self) -> None:
        """Let nobody fetch it any more."""
        self._downloader.delete_transaction()


def download(
    cell: Cell, source: str, ref: str, to: Path, most: int, stop: Callable[[], bool]
) -> None:
    """The file offered as `ref` by the cell `source`, written to `to`.

    most: bytes that it may have. stop: asked on the way; the fetching ends where it is true.
    Raises TransferError, and OSError where `to` cannot be written; nothing of it stays then.
    """
    _sweep.begin()
    into = _Download(to, most)
    try:
        with _signal(stop) as signal:
            download_object(source, ref, REQUEST_SECONDS, cell, into, abort_signal=signal)
    finally:
        into.close()
    if into.failure is not None:
        to.unlink(missing_ok=True)
        raise into.failure


class _Download(Consumer):  # type: ignore[misc]  # (FLARE has no types)
    """Writes what comes to a file, as much as may come."""

    supports_pipelining = True  # the next chunk is on its way while this one is written

    def __init__(self, path: Path, most: int) -> None:
        super().__init__()
        self._most, self._done = most, 0
        self._file = path.open("wb")
        self.failure: Exception | None = TransferError("the transfer was not begun")

    def consume(self, ref_id: str, state: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Take in one chunk."""
        self._done += len(data)
        _sweep.after(len(data))
        if self._done > self._most:
            self.failure = TransferError(f"more than the {self._most} bytes that it may have")
            raise self.failure
        try:
            self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        return {"received_bytes": self._done}

    def download_completed(self, ref_id: str) -> None:
        """All of it is here."""
        self.failure = None

    def download_failed(self, ref_id: str, reason: str) -> None:
        """FLARE gave up."""
        if not isinstance(self.failure, OSError) and self._done <= self._most:
            self.failure = TransferError(reason)

    def close(self) -> None:
        """End the file; a disk that is full may say so only now."""
        try:
            self._file.close()
        except OSError as error:
            self.failure = error


@contextmanager
def _signal(stop: Callable[[], bool]) -> Iterator[Signal]:
    """FLARE's signal, triggered once `stop` is true."""
    signal, over = Signal(), threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            if stop():
                signal.trigger("stopped, or past its deadline")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield signal
    finally:
        over.set()
        thread.join()
