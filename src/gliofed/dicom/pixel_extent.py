"""The position of pixel data in a DICOM file, without reading them (PS3.5 annex A)."""

from __future__ import annotations

from typing import BinaryIO, Final

from pydicom.tag import BaseTag

_PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED: Final = 0xFFFFFFFF


class PixelExtent:
    """The start of pixel data and, from lengths alone, whether they are complete."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begin = self._length = -1

    def met(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Whether `tag` is that of pixel data, whose position is then recorded."""
        if tag in _PIXELS:
            self._begin, self._length = self._file.tell(), length
        return tag in _PIXELS

    @property
    def there(self) -> bool:
        """Whether there are any pixel data."""
        return self._length > 0

    @property
    def compressed(self) -> bool:
        """Whether they are in items of a compressed stream."""
        return self._length == _UNDEFINED

    def cut(self, needed: int) -> bool:
        """Whether the pixel data end early. needed: bytes of uncompressed pixels."""
        size = self._file.seek(0, 2)
        if not self.there:
            return False
        if not self.compressed:
            return self._begin + self._length > size or self._length < needed
        at = self._begin
        while at + 8 <= size:
            self._file.seek(at)
            mark, length = self._file.read(4), int.from_bytes(self._file.read(4), "little")
            if mark == _DELIMITER:
                return False
            if mark != _ITEM:
                return True
            at += 8 + length
        return True
