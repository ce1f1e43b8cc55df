"""Unpacks archives that may be malicious: regular files only, below one folder, within limits."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from gliofed.errors import DataError
from gliofed.runtime.progress import Progress

MAX_MEMBERS: Final = 500_000
MAX_BYTES: Final = 64 * 2**30
"""Unpacked bytes; complete studies of a hundred patients are less."""
MAX_RATIO: Final = 200
"""Unpacked to packed bytes; DICOM files do not compress 20-fold."""
RATIO_FREE_BYTES: Final = 64 * 2**20
"""The ratio is not limited up to this size."""
_BY_HAND: Final = "unpack it yourself and give the folder"
_CHUNK: Final = 2**20
_BLOCK: Final = 512
_PADDING: Final = 2**16  # of the last record
_ENDINGS: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")
_BROKEN: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


_Stream = gzip.GzipFile | lzma.LZMAFile | BinaryIO


class _TooLargeError(Exception):
    """More bytes than an archive may hold."""


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold."""

    members: int = MAX_MEMBERS
    bytes: int = MAX_BYTES


@dataclass(frozen=True)
class _Member:
    name: str
    plain: bool
    folder: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """By the ending of the name."""
    return path.name.lower().endswith(_ENDINGS)


def unpack(
    path: Path,
    folder: Path,
    progress: Progress,
    limits: ArchiveLimits | None = None,
) -> None:
    """Write every regular file of an archive into `folder`, named by numbers.

    Names of members are not used, since they may hold a patient's name. Raises DataError, without
    a member's name: a path that leaves the folder, a link or device, too many members or bytes,
    or damage.
    """
    limits = limits or ArchiveLimits()
    max_bytes = min(limits.bytes, max(RATIO_FREE_BYTES, MAX_RATIO * path.stat().st_size))
    written = 0
    try:
        overhead = _PADDING + limits.members * 4 * _BLOCK
        with _members(path, max_bytes + overhead) as members:
            for count, member in enumerate(members, start=1):
                progress.update(count, max(count, 1), f"{count} members")
                if count > limits.members:
                    raise DataError(f"{path}: more than {limits.members} members; {_BY_HAND}")
                _check(path, count, member)
                if not member.folder:
                    written += _copy(member, folder / f"{count:06d}", max_bytes - written)
    except _TooLargeError:
        raise DataError(
            f"{path}: unpacks to more than {max_bytes} bytes (a zip bomb?); {_BY_HAND}"
        ) from None
    except _BROKEN as error:
        kind = type(error).__name__
        raise DataError(
            f"{path}: damaged, or locked by a password ({kind}); copy it again, or {_BY_HAND}"
        ) from None


def _check(path: Path, count: int, member: _Member) -> None:
    name = member.name.replace("\\", "/")
    drive = len(name) > 1 and name[1] == ":"
    problem = ""
    if name.startswith("/") or drive:
        problem = "has an absolute path"
    elif ".." in name.split("/"):
        problem = "has a path that leaves the folder"
    elif not (member.plain or member.folder):
        problem = "is a link or a device"
    if problem:
        raise DataError(
            f"{path}: member {count} {problem}; nothing of it was used; pack regular files only"
        )


def _copy(member: _Member, to: Path, left: int) -> int:
    """Copy and count bytes; sizes in the archive's headers are not used."""
    done = 0
    source = member.open()
    if source is None:
        return 0
    with source, to.open("xb") as out:
        while chunk := source.read(_CHUNK):
            done += len(chunk)
            if done > left:
                raise _TooLargeError
            out.write(chunk)
    return done


@contextmanager
def _members(path: Path, max_bytes: int) -> Iterator[Iterator[_Member]]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as packed:
            yield (_zipped(packed, info) for info in packed.infolist())
    else:
        with _unpacked(path) as stream:
            counted = _BoundedStream(stream, max_bytes)
            with tarfile.open(fileobj=counted, mode="r|") as packed_tar:  # type: ignore[call-overload]  # (it only reads from it)
                yield (_tarred(packed_tar, info) for info in packed_tar)
            counted.end()


def _unpacked(path: Path) -> _Stream:
    """The bytes of a tar file; unlike tarfile, these readers detect a truncated file."""
    with path.open("rb") as file:
        mark = file.read(6)
    if mark.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    return lzma.open(path) if mark == b"\xfd7zXZ\0" else path.open("rb")


class _BoundedStream:
    """A stream of limited length that checks its end."""

    def __init__(self, stream: _Stream, max_bytes: int) -> None:
        self._stream, self._left, self._tail = stream, max_bytes, b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _TooLargeError
        self._tail = (self._tail + data)[-_BLOCK:]
        return data

    def end(self) -> None:
        """Raises EOFError where the archive does not end with an empty block (POSIX ustar)."""
        while self.read(_CHUNK):
            pass
        if self._tail != bytes(_BLOCK):
            raise EOFError


def _zipped(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = (info.external_attr >> 16) & 0o170000
    plain = not info.is_dir() and kind in (0, 0o100000)
    return _Member(info.filename, plain, info.is_dir(), lambda: packed.open(info))


def _tarred(packed: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(info.name, info.isreg(), info.isdir(), lambda: packed.extractfile(info))
