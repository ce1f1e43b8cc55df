"""Files between server and site over FLARE's own connection, in chunks."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nvflare.apis.signal import Signal
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.streaming.download_service import Consumer, download_object
from nvflare.fuel.f3.streaming.file_downloader import FileDownloadable
from nvflare.fuel.f3.streaming.obj_downloader import ObjectDownloader
from nvflare.fuel.utils.memory_utils import try_malloc_trim

from gliofed.errors import TransferError
from gliofed.federated.flare.limits import CHUNK

REQUEST_SECONDS: Final = 30.0
"""Seconds until a chunk that has not arrived is requested again."""
_POLL_SECONDS: Final = 0.2
_CLEANUP_BYTES: Final = 2**26
"""Bytes that pass between two garbage collections."""
_FREEZES: Final = 4
"""First offers of a process after which its objects are excluded from collection: those of the
counts, and of rounds after which all modules have been imported."""


class _ChunkCleanup:
    """Frees the memory of chunks that were transferred.

    FLARE leaves each in a cycle of references, which Python collects too seldom. Without this, a
    process keeps a copy of the model for every site.
    """

    def __init__(self) -> None:
        self._lock, self._passed, self._offers = threading.Lock(), 0, 0

    def before_offer(self) -> None:
        """Call before an offer, while nothing is transferred.

        With the first offers, objects made so far are excluded from collection: going through
        those of all modules takes longer than the transfer of a small model.
        """
        with self._lock:
            if self._offers < _FREEZES:
                gc.collect()
                gc.freeze()
                self._offers += 1

    def after(self, size: int) -> None:
        """Count a transferred chunk of `size` bytes; collect when enough bytes were transferred."""
        with self._lock:
            self._passed += size
            if self._passed < _CLEANUP_BYTES:
                return
            self._passed = 0
            gc.collect()

    def all(self) -> None:
        """Collect now, and return free memory to the system; takes some milliseconds."""
        with self._lock:
            self._passed = 0
            gc.collect()
        try_malloc_trim()


_cleanup: Final = _ChunkCleanup()


def release_memory() -> None:
    """Free the memory of all transferred chunks; call it while the server waits for sites."""
    _cleanup.all()


class _CountedFile(FileDownloadable):  # type: ignore[misc]  # (FLARE has no types)
    def produce(self, state: dict[str, Any], requester: str) -> tuple[str, Any, dict[str, Any]]:
        chunk: tuple[str, Any, dict[str, Any]] = super().produce(state, requester)
        _cleanup.after(len(chunk[1] or b""))
        return chunk


class FileOffer:
    """A file that cells may download until it is withdrawn."""

    def __init__(self, cell: Cell, path: Path, receivers: int, seconds: float) -> None:
        """receivers: how many download it. seconds: kept without a request for a chunk."""
        _cleanup.before_offer()
        self._downloader = ObjectDownloader(cell, timeout=seconds, num_receivers=receivers)
        self.source: str = cell.get_fqcn()
        self.ref: str = self._downloader.add_object(_CountedFile(str(path), chunk_size=CHUNK))
        self.size = path.stat().st_size

    def withdraw(self) -> None:
        """End the offer."""
        self._downloader.delete_transaction()


@dataclass(frozen=True)
class OfferedFile:
    """A file on offer. source: the cell that offers it. ref: its reference there. max_bytes: that
    are downloaded at most."""

    source: str
    ref: str
    max_bytes: int


def download(cell: Cell, offered: OfferedFile, to: Path, should_stop: Callable[[], bool]) -> None:
    """Write a file on offer to `to`. should_stop: ends the download where it returns True.

    Raises TransferError, and OSError where `to` cannot be written; no part of it is left then.
    """
    target = _Download(to, offered.max_bytes)
    try:
        with _signal(should_stop) as signal:
            download_object(
                offered.source, offered.ref, REQUEST_SECONDS, cell, target, abort_signal=signal
            )
    finally:
        target.close()
    if target.failure is not None:
        to.unlink(missing_ok=True)
        raise target.failure


class _Download(Consumer):  # type: ignore[misc]  # (FLARE has no types)
    """Writes chunks to a file, up to a number of bytes."""

    supports_pipelining = True  # the next chunk is on its way while this one is written

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes, self._done = max_bytes, 0
        self._file = path.open("wb")
        self.failure: Exception | None = TransferError("the transfer did not begin")

    def consume(self, ref_id: str, state: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Write one chunk."""
        self._done += len(data)
        _cleanup.after(len(data))
        if self._done > self._max_bytes:
            self.failure = TransferError(
                f"the file has more than {self._max_bytes} bytes, the limit"
            )
            raise self.failure
        try:
            self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        return {"received_bytes": self._done}

    def download_completed(self, ref_id: str) -> None:
        """Called after the last chunk."""
        self.failure = None

    def download_failed(self, ref_id: str, reason: str) -> None:
        """Called where FLARE ends the download without success."""
        if not isinstance(self.failure, OSError) and self._done <= self._max_bytes:
            self.failure = TransferError(reason)

    def close(self) -> None:
        """Close the file; a full disk may be reported only now."""
        try:
            self._file.close()
        except OSError as error:
            self.failure = error


@contextmanager
def _signal(should_stop: Callable[[], bool]) -> Iterator[Signal]:
    """A signal of FLARE, triggered once `should_stop` returns True."""
    signal, over = Signal(), threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            if should_stop():
                signal.trigger("stopped, or past its deadline")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield signal
    finally:
        over.set()
        thread.join()
