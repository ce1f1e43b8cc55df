"""Reads the bytes of a file, plain or gzip, in pieces of bounded size."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from isal import isal_zlib

from gliofed.validation.findings import BrokenFileError, FileFault

CHUNK_BYTES: Final = 2**18
MAX_EXTRA_BYTES: Final = 16 * 2**20
"""Bytes after the declared end that are counted; more are reported as a zip bomb."""
_GZIP: Final = b"\x1f\x8b"


class ByteStream:
    """An open image file. Memory use is bounded by the size passed to `read`.

    Raises BrokenFileError where the file cannot be opened, is empty, or its name and its
    compression disagree.
    """

    def __init__(self, path: Path) -> None:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BrokenFileError("FILE-UNREADABLE", "not a regular file")
            self.bytes = status.st_size
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
        self._zip = isal_zlib.decompressobj(wbits=31)
        self._pending = b""
        self._ended = False
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
        while len(out) < count and not self._ended:
            if not self._pending:
                self._pending = self._file.read(CHUNK_BYTES)
                if not self._pending:
                    self._ended = True
                    if not self._zip.eof:
                        raise BrokenFileError("NII-GZIP-CUT", "the gzip data stop before their end")
                    break
            if self._zip.eof:
                self._next_member()
                continue
            try:
                out += self._zip.decompress(self._pending, count - len(out))
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub says an instance
                text = re.sub(r"^Error -?\d+:? ", "", str(error))
                code = "NII-GZIP-CRC" if "checksum" in text else "NII-GZIP-CORRUPT"
                raise BrokenFileError(code, text) from None
            self._pending = self._zip.unused_data if self._zip.eof else self._zip.unconsumed_tail
        return bytes(out)

    def _next_member(self) -> None:
        """Continue with the next gzip member; zeros after the last one are padding."""
        self._pending = self._pending.lstrip(b"\0")
        if len(self._pending) == 1:
            self._pending += self._file.read(CHUNK_BYTES)
        if self._pending[:2] == _GZIP:
            self._zip = isal_zlib.decompressobj(wbits=31)
        elif self._pending:
            self._ended = self.trailing = True

    def finish(self) -> tuple[FileFault, ...]:
        """Read the bytes after the declared voxels, at most `MAX_EXTRA_BYTES`, and report them.

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
        if extra and self.packed:  # the header check reports it for plain files
            faults.append(FileFault("NII-EXTRA-BYTES", f"{extra} bytes after the declared end"))
        if self.trailing:
            faults.append(
                FileFault("NII-GZIP-EXTRA", "bytes that are not gzip data follow its end")
            )
        return tuple(faults)
