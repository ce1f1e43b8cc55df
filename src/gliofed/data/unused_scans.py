"""Files that look like a scan and belong to no case."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gliofed.data.image_files import image_stem, is_image
from gliofed.data.sequence_names import read_name

_DERIVED = frozenset({"derivatives", "sourcedata"})


def unused_scans(root: Path, used: Iterable[Path]) -> tuple[Path, ...]:
    """Images below `root` that are none of `used` and may show one of the four sequences, by path.

    Left out: masks, images of other sequences, versions of a used image whose name has one more
    word or one less, hidden files, and BIDS derivatives. Empty where `root` is no folder.
    """
    known = {p.resolve() for p in used}
    out = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(n for n in below if not n.startswith(".") and n not in _DERIVED)
        for path in (Path(folder) / n for n in sorted(names) if not n.startswith(".")):
            if is_image(path) and path.resolve() not in known and _may_be_scan(path, known):
                out.append(path)
    return tuple(out)


def unused_text(path: Path, root: Path) -> str:
    """One unused file for the screen and the page: its name, why it is not used, and the cure."""
    sequence = read_name(image_stem(path).removeprefix(path.parent.name)).sequence
    name = path.relative_to(root) if path.is_relative_to(root) else path
    if sequence is None:
        return (
            f"{name}: looks like a scan and is not used, since its name has no word for T1, T1CE, "
            "T2 or FLAIR; rename it, or move it elsewhere"
        )
    return (
        f"{name}: may be {sequence} and is not used, since its folder or name is not that of a "
        "case, or is of a later session; rename it, or move it elsewhere"
    )


def _may_be_scan(path: Path, used: Iterable[Path]) -> bool:
    stem = image_stem(path)
    named = read_name(stem.removeprefix(path.parent.name))
    if named.mask or named.other:
        return False
    beside = (image_stem(p) for p in used if p.parent == path.resolve().parent)
    return not any(is_version(stem, other) or is_version(other, stem) for other in beside)


def is_version(name: str, other: str) -> bool:
    """Whether a name is the other's and one more word, as `x_T1_bias` and `x_T1`."""
    return name.startswith((f"{other}_", f"{other}-"))
