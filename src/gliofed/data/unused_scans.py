"""Files that look like a scan and belong to no case."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gliofed.data.image_files import image_stem, is_image
from gliofed.data.sequence_names import read_name

_DERIVED = frozenset({"derivatives", "sourcedata"})


def unused_scans(root: Path, used: Iterable[Path]) -> tuple[Path, ...]:
    """Images below `root` that are none of `used` and may show one of the four sequences, by path.

    Left out: masks, images of other sequences, versions of a used image whose name has one more
    word or one less, hidden files, BIDS derivatives, and those of `other_sessions`. Empty where
    `root` is no folder.
    """
    paths = tuple(used)
    session_of = _used_sessions(paths)
    return tuple(p for p in _free_scans(root, paths) if not _of_other_session(p, session_of))


def other_sessions(root: Path, used: Iterable[Path]) -> Mapping[Path, str]:
    """Folders of BIDS subjects with scans of other sessions than the used one, each with a line
    that names both; readers take the first session by rule."""
    paths = tuple(used)
    session_of = _used_sessions(paths)
    others: dict[Path, set[str]] = defaultdict(set)
    for path in _free_scans(root, paths):
        if _of_other_session(path, session_of):
            subject, session = bids_session(path)
            others[subject].add(session)
    return {
        folder: f"{folder.name}: {session_of[folder] or 'anat without a session'} is used as "
        f"preoperative, the first; not used: {', '.join(sorted(sessions))}"
        for folder, sessions in others.items()
    }


def bids_session(path: Path) -> tuple[Path, str]:
    """The folder of the BIDS subject that a file is in, and its session; both empty where it is in
    none."""
    for folder in path.absolute().parents:
        if folder.name.startswith("sub-"):
            inside = path.absolute().relative_to(folder).parts[0]
            return folder, inside if inside.startswith("ses-") else ""
    return Path(), ""


def _used_sessions(used: Iterable[Path]) -> Mapping[Path, str]:
    """By the folder of a subject, the session of its used images; empty for none."""
    return {subject: session for subject, session in map(bids_session, used) if subject.name}


def _of_other_session(path: Path, session_of: Mapping[Path, str]) -> bool:
    subject, session = bids_session(path)
    return bool(session) and session_of.get(subject, session) != session


def _free_scans(root: Path, used: Iterable[Path]) -> Iterator[Path]:
    """Images below `root` that are none of `used` and may show one of the four sequences."""
    known = {p.resolve() for p in used}
    for folder, below, names in os.walk(root):
        below[:] = sorted(n for n in below if not n.startswith(".") and n not in _DERIVED)
        for path in (Path(folder) / n for n in sorted(names) if not n.startswith(".")):
            if is_image(path) and path.resolve() not in known and _may_be_scan(path, known):
                yield path


def unused_text(path: Path, root: Path) -> str:
    """One unused file for the screen and the page: its name, why it is not used, and the cure."""
    sequence = read_name(image_stem(path).removeprefix(path.parent.name)).sequence
    name = path.relative_to(root) if path.is_relative_to(root) else path.name
    if sequence is None:
        return (
            f"{name}: looks like a scan and is not used, since its name has no word for T1, T1CE, "
            "T2 or FLAIR; rename it, or move it elsewhere"
        )
    return (
        f"{name}: may be {sequence} and is not used, since its folder or name is not that of a "
        "case; rename it, or move it elsewhere"
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
