"""What lies at a path: hospitals, their cases with images and masks, and their tables.

Lenient where a data set's reader is strict: what is odd becomes a finding, and the rest goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from gliofed.types import Sequence
from gliofed.validation.findings import Finding

_Key = TypeVar("_Key")

DEPTH: Final = 3
"""Folders between the path and a hospital, at most."""

_NIFTI: Final = re.compile(r"\.nii(\.gz)?$", re.I)
_BIDS: Final = re.compile(r"^(?P<subject>sub-[A-Za-z0-9]+)(?P<middle>.*)_(?P<suffix>[A-Za-z0-9]+)$")
_BIDS_MASK: Final = re.compile(r"_(label-(tumor|tumour|lesion)_mask|dseg)$")
_TOKENS: Final[Mapping[str, Sequence]] = {
    "t1": Sequence.T1,
    "t1n": Sequence.T1,
    "t1w": Sequence.T1,
    "t1ce": Sequence.T1CE,
    "t1gd": Sequence.T1CE,
    "t1c": Sequence.T1CE,
    "t1gad": Sequence.T1CE,
    "t2": Sequence.T2,
    "t2w": Sequence.T2,
    "flair": Sequence.FLAIR,
    "fl": Sequence.FLAIR,
    "t2f": Sequence.FLAIR,
}
"""How case folders in the style of BraTS name their sequences: the last of these words counts."""
_MASK_TOKENS: Final = frozenset(
    {
        "seg",
        "segm",
        "mask",
        "label",
        "glistrboost",
        "segmentation",
        "tumorseg",
        "tumourseg",
    }
)
_OTHER_MASKS: Final = frozenset({"brain", "parenchyma", "bet"})
"""What a segmentation may be of that is no tumour."""


@dataclass(frozen=True)
class LocatedCase:
    """One case: a name for people, its folder's name, its images and masks.

    masks: by kind; the first is the one that training would take.
    """

    case: str
    subject: str
    images: Mapping[Sequence, Path]
    masks: Mapping[str, Path]


@dataclass(frozen=True)
class LocatedSite:
    """One hospital, or one folder of case folders (bids false), with its tables."""

    name: str
    root: Path
    bids: bool
    places: tuple[LocatedCase, ...]
    tables: tuple[Path, ...]


@dataclass
class _Located:
    sites: list[LocatedSite] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def locate(path: Path) -> tuple[tuple[LocatedSite, ...], tuple[Finding, ...]]:
    """Every hospital at or below `path`, ordered by name, and what is odd about names and places.

    A single image or table is a site of one. The path must exist.
    """
    found = _Located()
    if path.is_file():
        _file(path, found)
    else:
        _folder(path, 0, found)
    if not found.sites:
        found.findings.append(Finding("FILE-NOTHING", "", path.name, f"nothing known at {path}"))
    return tuple(found.sites), tuple(found.findings)


def display_path(path: Path, root: Path) -> str:
    """The path as it is shown: below `root` where it is."""
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else path.name


def is_nifti(path: Path) -> bool:
    """By its name alone."""
    return _NIFTI.search(path.name) is not None


def _file(path: Path, found: _Located) -> None:
    if is_nifti(path):
        name = _stem(path)
        is_mask, sequence = _by_token(name)
        images = {} if is_mask else {sequence or Sequence.FLAIR: path}
        place = LocatedCase(name, name, images, {"mask": path} if is_mask else {})
        found.sites.append(LocatedSite("", path.parent, False, (place,), ()))
    elif path.suffix.lower() in (".tsv", ".csv", ".txt"):
        found.sites.append(LocatedSite("", path.parent, False, (), (path,)))


def _folder(root: Path, depth: int, found: _Located) -> None:
    inside = _inside(root)
    if (root / "participants.tsv").exists() or any(
        p.name.startswith("sub-") and p.is_dir() for p in inside
    ):
        found.sites.append(_bids(root, found))
        return
    folders = [p for p in inside if p.is_dir() and not p.name.startswith(".")]
    cases = [p for p in folders if any(is_nifti(f) for f in _inside(p))]
    if any(is_nifti(p) for p in inside):
        _loose(root, [p for p in inside if is_nifti(p)], found)
    elif cases:
        found.sites.append(_case_folders(root, cases, found))
    elif depth < DEPTH:
        for folder in folders:
            _folder(folder, depth + 1, found)


def _loose(root: Path, files: list[Path], found: _Located) -> None:
    """A folder with images in it: one case, or a pile of masks whose images lie elsewhere."""
    if len(files) > 1 and all(_by_token(_stem(p))[0] for p in files):
        places = tuple(LocatedCase(_stem(p), _stem(p), {}, {"mask": p}) for p in files)
        found.sites.append(LocatedSite("", root, False, places, ()))
    else:
        found.sites.append(_case_folders(root, [root], found))


def _case_folders(root: Path, folders: Iterable[Path], found: _Located) -> LocatedSite:
    """Case folders in the style of BraTS: a sequence is known by a word in the file's name.

    Several masks are all looked at: which of them counts is for the data set's reader to say.
    """
    places = []
    for folder in folders:
        case = f"{root.name}/{folder.name}" if folder != root else folder.name
        images: dict[Sequence, Path] = {}
        masks: dict[str, Path] = {}
        for path in filter(is_nifti, _inside(folder)):
            is_mask, sequence = _by_token(_stem(path).removeprefix(folder.name))
            where = display_path(path, root)
            if is_mask:
                masks[_stem(path)] = path
            elif sequence is None or _made_from(path, images.get(sequence)):
                found.findings.append(Finding("SET-UNKNOWN-IMAGE", case, where, path.name))
            else:
                _put(images, sequence, path, "SET-SEQUENCE-TWICE", case, where, found)
        places.append(LocatedCase(case, folder.name, images, masks))
    tables = tuple(p for p in _inside(root) if p.suffix.lower() in (".csv", ".tsv"))
    return LocatedSite(root.name, root, False, tuple(places), tables)


def _made_from(path: Path, other: Path | None) -> bool:
    """Whether the name is the other's with a word more, as `x_T1_bias` is of `x_T1`."""
    return other is not None and _stem(path).startswith((f"{_stem(other)}_", f"{_stem(other)}-"))


def _put(
    into: dict[_Key, Path], key: _Key, path: Path, code: str, case: str, where: str, found: _Located
) -> None:
    if key in into:
        found.findings.append(Finding(code, case, where, f"besides {into[key].name}"))
    into.setdefault(key, path)


def _by_token(name: str) -> tuple[bool, Sequence | None]:
    """Whether the name is a mask's, and else its sequence, by the last word that says so."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    for word in reversed(words):
        if word in _MASK_TOKENS:
            return _OTHER_MASKS.isdisjoint(words), None
        if word in _TOKENS:
            return False, _TOKENS[word]
    return False, None


def _bids(root: Path, found: _Located) -> LocatedSite:
    subjects = [p for p in _inside(root) if p.name.startswith("sub-") and p.is_dir()]
    places = []
    for folder in subjects:
        case = f"{root.name}/{folder.name.removeprefix('sub-')}"
        images = _bids_images(root, folder, case, found)
        places.append(
            LocatedCase(case, folder.name, images, _bids_masks(root, folder.name, case, found))
        )
    have = {p.name for p in subjects}
    for mask in sorted((root / "derivatives").glob("*/sub-*")):
        if mask.is_dir() and mask.name not in have:
            found.findings.append(
                Finding(
                    "SET-MASK-ORPHAN",
                    f"{root.name}/{mask.name}",
                    display_path(mask, root),
                    mask.name,
                )
            )
    tables = [root / "participants.tsv"]
    return LocatedSite(root.name, root, True, tuple(places), tuple(t for t in tables if t.exists()))


def _bids_images(root: Path, folder: Path, case: str, found: _Located) -> dict[Sequence, Path]:
    images: dict[Sequence, Path] = {}
    for path in _first_session(folder, case, root, found):
        where, match = display_path(path, root), _BIDS.match(_stem(path))
        sequence = _bids_sequence(match["suffix"], match["middle"]) if match else None
        if match is not None and match["subject"] != folder.name:
            text = f"{match['subject']} in {folder.name}"
            found.findings.append(Finding("SET-WRONG-FOLDER", case, where, text))
        if sequence is None:
            found.findings.append(Finding("SET-UNKNOWN-IMAGE", case, where, path.name))
        else:
            _put(images, sequence, path, "SET-SEQUENCE-TWICE", case, where, found)
    return images


def _bids_sequence(suffix: str, middle: str) -> Sequence | None:
    if suffix == "T1w":
        return Sequence.T1CE if "_ce-" in middle else Sequence.T1
    return {"T2w": Sequence.T2, "FLAIR": Sequence.FLAIR}.get(suffix)


def _bids_masks(root: Path, subject: str, case: str, found: _Located) -> dict[str, Path]:
    """Whole-tumour masks before segmentations in several classes, as the reader takes them."""
    kinds: dict[str, Path] = {}
    paths = [
        path
        for derivative in sorted((root / "derivatives").glob("*"))
        for path in _first_session(derivative / subject, case, root, None)
        if _BIDS_MASK.search(_stem(path))
    ]
    for kind in ("mask", "dseg"):
        for path in (p for p in paths if _stem(p).endswith(kind)):
            _put(kinds, kind, path, "SET-MASK-TWICE", case, display_path(path, root), found)
    return kinds


def _first_session(folder: Path, case: str, root: Path, found: _Located | None) -> list[Path]:
    """Images without a session, else those of the first session by name."""
    plain = [p for p in _inside(folder / "anat") if is_nifti(p)]
    if plain:
        return plain
    sessions = [p for p in _inside(folder) if p.name.startswith("ses-") and p.is_dir()]
    if len(sessions) > 1 and found is not None:
        text = ", ".join(p.name for p in sessions)
        found.findings.append(Finding("SET-SESSIONS", case, display_path(folder, root), text))
    return [p for p in _inside(sessions[0] / "anat") if is_nifti(p)] if sessions else []


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing where it cannot be read."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []


def _stem(path: Path) -> str:
    return _NIFTI.sub("", path.name)
