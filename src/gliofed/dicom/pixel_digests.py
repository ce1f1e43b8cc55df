"""Digests of the stored pixels of slices, to find those that were sent twice."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread

from gliofed.dicom.frames import stored_pixels
from gliofed.dicom.headers import DicomHeader, quiet


class PixelDigests:
    """SHA-256 of the stored pixels of slices; each file is read once, when it is asked for."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int], bytes] = {}

    def equal(self, one: DicomHeader, other: DicomHeader) -> bool:
        """Whether two slices have the same bytes of pixels; False where they cannot be read."""
        digest = self._of(one)
        return bool(digest) and digest == self._of(other)

    def _of(self, one: DicomHeader) -> bytes:
        key = one.path, one.frame
        if key not in self._known:
            self._read(one)
        return self._known.setdefault(key, b"")

    def _read(self, one: DicomHeader) -> None:
        """All frames of a file at once."""
        frames = range(1, one.frames + 1) if one.frame else (0,)
        with quiet():
            try:
                file = dcmread(one.path, force=True)
                for frame in frames:
                    pixels = stored_pixels(file, replace(one, frame=frame))
                    self._known[one.path, frame] = hashlib.sha256(pixels).digest()
            except Exception:  # foreign bytes: pydicom raises of any kind
                self._known.setdefault((one.path, one.frame), b"")
