"""A C-STORE provider: a PACS sends, files appear (DICOM PS3.4 annex B, PS3.7 section 9.3.1)."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    Verification,
)

from gliofed.dicom.headers import is_uid
from gliofed.errors import DataError
from gliofed.runtime.progress import NO_PROGRESS, Progress

SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
)
"""Transfer syntaxes offered, uncompressed first; all lossless."""
_KINDS: Final = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_OUT_OF_ROOM: Final = 0xA700
_NOT_UNDERSTOOD: Final = 0xC000
_DONE: Final = 0x0000
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_TICK: Final = 0.2
MAX_ASSOCIATIONS: Final = 8


@dataclass(frozen=True)
class ListenAddress:
    """Where to listen. peers: accepted calling titles; empty accepts all (this machine only).

    idle: seconds without an association after which to stop; None for never.
    """

    number: int
    title: str = "GLIOFED"
    host: str = "127.0.0.1"
    peers: tuple[str, ...] = ()
    idle: float | None = None


@dataclass
class _Reception:
    """State shared by the provider's threads."""

    folder: Path
    progress: Progress
    lock: threading.Lock = field(default_factory=threading.Lock)
    names: set[str] = field(default_factory=set)
    busy: int = 0
    since: float = field(default_factory=time.monotonic)

    def store(self, event: Event) -> int:
        """Write one instance unchanged; its file name does not reveal its UID."""
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        if not is_uid(uid):
            return _NOT_UNDERSTOOD
        name = hashlib.sha256(uid.encode()).hexdigest()[:32]
        temporary = self.folder / f".{name}.{threading.get_ident()}.part"
        try:
            with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as file:
                file.write(event.encoded_dataset())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / f"{name}.dcm")
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return _OUT_OF_ROOM
        with self.lock:
            self.names.add(name)
            count = len(self.names)
            self.progress.update(count, count + 1, f"{count} instances")
        return _DONE

    def opened(self, event: Event) -> None:
        with self.lock:
            self.busy += 1

    def closed(self, event: Event) -> None:
        with self.lock:
            self.busy -= 1
            self.since = time.monotonic()

    def idle(self) -> float:
        """Seconds since the last association ended; 0 while there is one."""
        with self.lock:
            return 0.0 if self.busy else time.monotonic() - self.since


def receive(folder: Path, port: ListenAddress, progress: Progress = NO_PROGRESS) -> int:
    """Receive MR instances until idle or interrupted; return their number.

    Raises DataError: a title that DICOM does not allow, a port in use, or other machines allowed
    without a peer (DICOM has neither password nor TLS here).
    """
    progress.stage("receiving")
    _check(port)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(".*.part"):
        left.unlink()
    reception = _Reception(folder, progress)
    entity = _entity(port)
    handlers: list[Any] = [
        (evt.EVT_C_STORE, reception.store),
        (evt.EVT_C_ECHO, lambda event: _DONE),
        (evt.EVT_CONN_OPEN, reception.opened),
        (evt.EVT_CONN_CLOSE, reception.closed),
    ]
    try:
        server = entity.start_server((port.host, port.number), block=False, evt_handlers=handlers)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{port.host}:{port.number} cannot be listened on ({reason}); choose another --port"
        ) from None
    try:
        while port.idle is None or reception.idle() < port.idle:
            time.sleep(_TICK)
    finally:
        server.shutdown()  # type: ignore[union-attr]
    return len(reception.names)


def _entity(port: ListenAddress) -> AE:
    entity = AE(ae_title=port.title)
    for kind in _KINDS:
        entity.add_supported_context(kind, list(SYNTAXES))
    entity.add_supported_context(Verification)
    entity.require_called_aet = True
    entity.maximum_associations = MAX_ASSOCIATIONS
    if port.peers:
        entity.require_calling_aet = list(port.peers)
    return entity


def _check(port: ListenAddress) -> None:
    for title in (port.title, *port.peers):
        valid = title.isascii() and title.isprintable() and "\\" not in title
        if not (valid and title == title.strip() and 1 <= len(title) <= 16):
            raise DataError(
                f"application entity title {title!r}: expected 1 to 16 plain characters (PS3.5 6.2)"
            )
    try:
        loopback = port.host == "localhost" or ipaddress.ip_address(port.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not port.peers:
        raise DataError(
            f"--host {port.host} accepts other machines; name those that may send: --peer TITLE"
        )
