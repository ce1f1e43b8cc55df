"""Messages between the checking process and its child: one JSON object a line.

Pickle is not used: the child reads files of unknown origin, so its responses are validated.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gliofed.types import Sequence
from gliofed.validation.codes import BY_ID
from gliofed.validation.findings import FileFault

MEMORY: Final = 2**30
"""Address space of the child, in bytes."""
CPU_SECONDS: Final = 20
"""CPU time of the child for one file, and for the comparisons of one case."""
TOGETHER: Final = "*"
"""Where the child is while it reads images side by side."""


@dataclass(frozen=True)
class ReadRequest:
    """One case to read. masks: by name; the first is drawn. picture: draw a thumbnail. together:
    read the images side by side, begun as one file `TOGETHER`."""

    images: Mapping[Sequence, Path]
    masks: Mapping[str, Path]
    picture: bool
    together: bool = False

    def line(self) -> bytes:
        """The line sent to the child."""
        return _dump(
            {
                "images": {s.value: str(p) for s, p in self.images.items()},
                "masks": {n: str(p) for n, p in self.masks.items()},
                "picture": self.picture,
                "together": self.together,
            }
        )

    @staticmethod
    def parse(line: bytes) -> ReadRequest:
        """Read in the child."""
        raw = json.loads(line)
        return ReadRequest(
            {Sequence(s): Path(p) for s, p in raw["images"].items()},
            {n: Path(p) for n, p in raw["masks"].items()},
            bool(raw["picture"]),
            bool(raw["together"]),
        )


@dataclass(frozen=True)
class ReadResponse:
    """The child's response. faults: where ("" for the case, else a sequence or mask) and what.

    digests: of the voxels of every image that was read and has more than one value.
    picture: PNG, or nothing.
    """

    faults: tuple[tuple[str, FileFault], ...]
    digests: Mapping[str, str]
    picture: bytes

    def line(self) -> bytes:
        """The line sent to the parent."""
        return _dump(
            {
                "faults": [[where, f.code, f.text] for where, f in self.faults],
                "digests": dict(self.digests),
                "picture": base64.b64encode(self.picture).decode("ascii"),
            }
        )

    @staticmethod
    def parse(raw: Mapping[str, Any]) -> ReadResponse:
        """Read in the parent. Raises ValueError, KeyError or TypeError for anything unexpected."""
        faults = [(str(w), FileFault(str(c), str(t))) for w, c, t in raw["faults"] if c in BY_ID]
        return ReadResponse(
            tuple(faults),
            {str(k): str(v) for k, v in raw["digests"].items()},
            base64.b64decode(raw["picture"], validate=True),
        )


def begin_line(where: str) -> bytes:
    """Sent to the parent before each file, which is at fault if no response follows."""
    return _dump({"begin": where})


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"
