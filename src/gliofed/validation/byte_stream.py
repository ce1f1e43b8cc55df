"""The bytes of a file, plain or gzip, a bounded piece at a time."""

from __future__ import annotations

import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gliofed.validation.findings import BrokenFileError, FileFault

CHUNK_BYTES: Final = 2**18
MAX_EXTRA_BYTES: Final = 16 * 2**20
"""Bytes after the declared end that are still counted; more is taken for a bomb."""
_GZIP: Final = b"\x1f\x8b"


class ByteStream:
    """An open image file. Memory use is bounded by what is asked of `read`, whatever is packed.

    Raises BrokenFileError where the file cannot be opened, is empty, or its name and its
    compression disagree.
    """

    def __init__(self, path: Path) -> None:
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise BrokenFileError("FILE-UNREADABLE", "not a regular file")
            self.bytes = about.st_size
            self._file = path.open("rb")
        except OSError as error:
            raise BrokenFileError("FILE-UNREADABLE", error.strerror or "not readable") from None
        try:
            start = self._file.read(2)
            self._file.seek(0)
            self.packed = start == _GZIP
            self._check_start(path.name, start)
        except OSError as error:
            self._file.close()
            raise BrokenFileError("FILE-UNREADABLE", error.strerror or "not readable") from None
        except BrokenFileError:
            self._file.close()
            raise
        self._zip = zlib.decompressobj(wbits=31)
        self._waiting = b""
        self._over = False
        self.trailing = False

    def _check_start(self, name: str, start: bytes) -> None:
        if not start:
            raise BrokenFileError("FILE-EMPTY", "0 bytes")
        if self.packed != name.lower().endswith(".gz"):
            state = "compressed" if self.packed else "not compressed"
            raise BrokenFileError("NII-GZIP-NAME", f"{state}, but named {name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end. Raises BrokenFileError: damaged gzip."""
        try:
            if not self.packed:
                return self._file.read(count)
            return self._unpack(count)
        except OSError as error:
            raise BrokenFileError("FILE-UNREADABLE", error.strerror or "not readable") from None

    def _unpack(self, count: int) -> bytes:
        out = bytearray()
        while len(out) < count and not self._over:
            if not self._waiting:
                self._waiting = self._file.read(CHUNK_BYTES)
                if not self._waiting:
                    self._over = True
                    if not self._zip.eof:
                        raise BrokenFileError("NII-GZIP-CUT", "the gzip data stop before their end")
                    break
            if self._zip.eof:
                self._next_member()
                continue
            try:
                out += self._zip.decompress(self._waiting, count - len(out))
            except zlib.error as error:
                wrong_tail = "check" in str(error) and "incorrect" in str(error)
                tail = wrong_tail and "header" not in str(error)
                code = "NII-GZIP-CRC" if tail else "NII-GZIP-CORRUPT"
                raise BrokenFileError(code, str(error).split(": ", 1)[-1]) from None
            self._waiting = self._zip.unused_data if self._zip.eof else self._zip.unconsumed_tail
        return bytes(out)

    def _next_member(self) -> None:
        """Go on in the next gzip member; zeros after the end are padding, else it is over."""
        self._waiting = self._waiting.lstrip(b"\0")
        if len(self._waiting) == 1:
            self._waiting += self._file.read(CHUNK_BYTES)
        if self._waiting[:2] == _GZIP:
            self._zip = zlib.decompressobj(wbits=31)
        elif self._waiting:
            self._over = self.trailing = True

    def finish(self) -> tuple[FileFault, ...]:
        """Read to the end, at most `MAX_EXTRA_BYTES` bytes: what stands after the declared voxels.

        Raises BrokenFileError: a damaged gzip tail, or a bomb.
        """
        extra = 0
        while piece := self.read(min(CHUNK_BYTES, MAX_EXTRA_BYTES + 1 - extra)):
            extra += len(piece)
            if extra > MAX_EXTRA_BYTES:
                raise BrokenFileError(
                    "NII-BOMB", f"over {MAX_EXTRA_BYTES >> 20} MiB after the declared end"
                )
        faults = []
        if extra and self.packed:  # of plain files, the header check knows it already
            faults.append(FileFault("NII-EXTRA-BYTES", f"{extra} bytes after the declared end"))
        if self.trailing:
            faults.append(FileFault("NII-GZIP-EXTRA", "bytes that are no gzip data follow its end"))
        return tuple(faults)
