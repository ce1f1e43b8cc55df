"""Finds the hospitals at a path, their cases with images and masks, and their tables.

Unlike the readers in `data.formats`, it goes on after a fault and reports it as a finding.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from gliofed.data.formats import nnunet
from gliofed.data.formats.registry import DEFAULT, inspect
from gliofed.data.image_files import image_stem, is_image
from gliofed.data.sequence_names import read_name
from gliofed.data.unused_scans import is_version
from gliofed.errors import DataError
from gliofed.types import Sequence
from gliofed.validation.findings import Finding

_Key = TypeVar("_Key")

DEPTH: Final = 3
"""Largest number of folders between the path and a hospital."""

_BIDS: Final = re.compile(r"^(?P<subject>sub-[A-Za-z0-9]+)(?P<middle>.*)_(?P<suffix>[A-Za-z0-9]+)$")
_BIDS_MASK: Final = re.compile(r"_(label-(tumor|tumour|lesion)_mask|dseg)$")


@dataclass(frozen=True)
class LocatedCase:
    """One case. name: for findings. subject: its folder's name.

    masks: by kind; the first is the one used in training.
    """

    name: str
    subject: str
    images: Mapping[Sequence, Path]
    masks: Mapping[str, Path]


@dataclass(frozen=True)
class LocatedSite:
    """One hospital, or one folder of case folders (bids false), with its tables."""

    name: str
    root: Path
    bids: bool
    cases: tuple[LocatedCase, ...]
    tables: tuple[Path, ...]


@dataclass
class _Located:
    sites: list[LocatedSite] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def locate(path: Path) -> tuple[tuple[LocatedSite, ...], tuple[Finding, ...]]:
    """Every hospital at or below `path`, ordered by name, and findings on file names and folders.

    A single image, table or BIDS subject (its folder, or `anat` in it) is a site of its own. The
    path must exist.
    """
    located = _Located()
    if not path.name:  # "."
        path = path.absolute()
    if path.is_file():
        _file(path, located)
    elif subject := _bids_subject(path):
        case = _bids_case(subject.parent, subject, located)
        located.sites.append(LocatedSite(subject.parent.name, subject.parent, True, (case,), ()))
    else:
        _folder(path, 0, located)
    if not located.sites:
        text = f"no image or table at {path}"
        located.findings.append(Finding("FILE-NOTHING", "", path.name, text))
    return tuple(located.sites), tuple(located.findings)


def locate_set(path: Path, format_id: str) -> tuple[tuple[LocatedSite, ...], tuple[Finding, ...]]:
    """The cases of one data set as the reader of its format finds them; of BIDS, as `locate`.

    Its tables are read by that reader. Raises StudyError for an unknown format, DataError where
    the data set cannot be read.
    """
    if format_id == DEFAULT:
        return locate(path)
    cases = (
        LocatedCase(
            f"{path.name}/{c.id}", c.id, c.images, {"mask": c.mask} if c.mask is not None else {}
        )
        for c in inspect(path, format_id).cases
    )
    return (LocatedSite(path.name, path, False, tuple(cases), ()),), ()


def display_path(path: Path, root: Path) -> str:
    """The path for findings: relative to `root` where it is below it."""
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else path.name


def _file(path: Path, located: _Located) -> None:
    if is_image(path):
        name = image_stem(path)
        named = read_name(name)
        images = {} if named.mask else {named.sequence or Sequence.FLAIR: path}
        case = LocatedCase(name, name, images, {"mask": path} if named.mask else {})
        located.sites.append(LocatedSite("", path.parent, False, (case,), ()))
    elif path.suffix.lower() in (".tsv", ".csv", ".txt"):
        located.sites.append(LocatedSite("", path.parent, False, (), (path,)))


def _folder(root: Path, depth: int, located: _Located) -> None:
    entries = _entries(root)
    if (root / "participants.tsv").exists() or any(
        p.name.startswith("sub-") and p.is_dir() for p in entries
    ):
        located.sites.append(_bids_site(root, located))
        return
    folders = [p for p in entries if p.is_dir() and not p.name.startswith(".")]
    cases = [p for p in folders if any(is_image(f) for f in _entries(p))]
    others = [p for p in folders if p not in cases]
    if nnunet_cases := _nnunet_cases(root, located):
        located.sites.append(LocatedSite(root.name, root, False, nnunet_cases, ()))
    elif any(is_image(p) for p in entries):
        _loose_images(root, [p for p in entries if is_image(p)], located)
    else:
        if cases:
            located.sites.append(_case_folders(root, cases, located))
        for folder in others if depth < DEPTH else ():
            _folder(folder, depth + 1, located)


def _nnunet_cases(root: Path, located: _Located) -> tuple[LocatedCase, ...]:
    try:
        cases = nnunet.find_cases(root)
    except (DataError, OSError) as error:
        located.findings.append(Finding("FILE-UNREADABLE", "", nnunet.DATASET, str(error)))
        return ()
    return tuple(
        LocatedCase(f"{root.name}/{c.name}", c.name, c.images, {"mask": c.mask} if c.mask else {})
        for c in cases
    )


def _loose_images(root: Path, files: list[Path], located: _Located) -> None:
    """A folder with images: one case, or a collection of masks without images."""
    if len(files) > 1 and all(read_name(image_stem(p)).mask for p in files):
        cases = tuple(LocatedCase(image_stem(p), image_stem(p), {}, {"mask": p}) for p in files)
        located.sites.append(LocatedSite("", root, False, cases, ()))
    else:
        located.sites.append(_case_folders(root, [root], located))


def _case_folders(root: Path, folders: Iterable[Path], located: _Located) -> LocatedSite:
    """Case folders in the style of BraTS: a word in the file's name gives the sequence.

    All masks are checked; the data set's reader chooses one.
    """
    cases = []
    for folder in folders:
        case = f"{root.name}/{folder.name}" if folder != root else folder.name
        images: dict[Sequence, Path] = {}
        masks: dict[str, Path] = {}
        for path in filter(is_image, _entries(folder)):
            named = read_name(image_stem(path).removeprefix(folder.name))
            sequence, where = named.sequence, display_path(path, root)
            if named.mask:
                masks[image_stem(path)] = path
            elif sequence is None or _is_derived(path, images.get(sequence)):
                located.findings.append(Finding("SET-UNKNOWN-IMAGE", case, where, path.name))
            else:
                duplicate = Finding("SET-SEQUENCE-TWICE", case, where, "")
                _add_once(images, sequence, path, duplicate, located)
        cases.append(LocatedCase(case, folder.name, images, masks))
    tables = tuple(p for p in _entries(root) if p.suffix.lower() in (".csv", ".tsv"))
    return LocatedSite(root.name, root, False, tuple(cases), tables)


def _is_derived(path: Path, other: Path | None) -> bool:
    return other is not None and is_version(image_stem(path), image_stem(other))


def _add_once(
    files: dict[_Key, Path], key: _Key, path: Path, duplicate: Finding, located: _Located
) -> None:
    """Add a file under its key, or report `duplicate`, whose text is set here."""
    if key in files:
        text = f"besides {files[key].name}; each is {key} by its name"
        located.findings.append(replace(duplicate, text=text))
    files.setdefault(key, path)


def _bids_subject(folder: Path) -> Path | None:
    """The subject whose folder this is, or whose `anat`; None if it is neither."""
    subject = folder.parent if folder.name == "anat" else folder
    is_subject = subject.name.startswith("sub-") and any(
        p.name == "anat" or p.name.startswith("ses-") for p in _entries(subject)
    )
    return subject if is_subject else None


def _bids_site(root: Path, located: _Located) -> LocatedSite:
    subjects = [p for p in _entries(root) if p.name.startswith("sub-") and p.is_dir()]
    cases = tuple(_bids_case(root, folder, located) for folder in subjects)
    _find_orphan_masks(root, {p.name for p in subjects}, located)
    tables = [root / "participants.tsv"]
    return LocatedSite(root.name, root, True, cases, tuple(t for t in tables if t.exists()))


def _bids_case(root: Path, folder: Path, located: _Located) -> LocatedCase:
    case = f"{root.name}/{folder.name.removeprefix('sub-')}"
    images = _bids_images(root, folder, case, located)
    return LocatedCase(case, folder.name, images, _bids_masks(root, folder.name, case, located))


def _find_orphan_masks(root: Path, subjects: Collection[str], located: _Located) -> None:
    for mask in sorted((root / "derivatives").glob("*/sub-*")):
        if mask.is_dir() and mask.name not in subjects:
            case, where = f"{root.name}/{mask.name}", display_path(mask, root)
            located.findings.append(Finding("SET-MASK-ORPHAN", case, where, mask.name))


def _bids_images(root: Path, folder: Path, case: str, located: _Located) -> dict[Sequence, Path]:
    images: dict[Sequence, Path] = {}
    for path in _first_session(folder, case, root, located):
        where, match = display_path(path, root), _BIDS.match(image_stem(path))
        sequence = _bids_sequence(match["suffix"], match["middle"]) if match else None
        if match is not None and match["subject"] != folder.name:
            text = f"{match['subject']} in {folder.name}"
            located.findings.append(Finding("SET-WRONG-FOLDER", case, where, text))
        if sequence is None:
            located.findings.append(Finding("SET-UNKNOWN-IMAGE", case, where, path.name))
        else:
            duplicate = Finding("SET-SEQUENCE-TWICE", case, where, "")
            _add_once(images, sequence, path, duplicate, located)
    return images


def _bids_sequence(suffix: str, middle: str) -> Sequence | None:
    if suffix == "T1w":
        return Sequence.T1CE if "_ce-" in middle else Sequence.T1
    return {"T2w": Sequence.T2, "FLAIR": Sequence.FLAIR}.get(suffix)


def _bids_masks(root: Path, subject: str, case: str, located: _Located) -> dict[str, Path]:
    """Masks by kind: whole-tumour masks before segmentations with several classes."""
    kinds: dict[str, Path] = {}
    paths = [
        path
        for derivative in sorted((root / "derivatives").glob("*"))
        for path in _first_session(derivative / subject, case, root, None)
        if _BIDS_MASK.search(image_stem(path))
    ]
    for kind in ("mask", "dseg"):
        for path in (p for p in paths if image_stem(p).endswith(kind)):
            duplicate = Finding("SET-MASK-TWICE", case, display_path(path, root), "")
            _add_once(kinds, kind, path, duplicate, located)
    return kinds


def _first_session(folder: Path, case: str, root: Path, located: _Located | None) -> list[Path]:
    """Images without a session, else those of the first session by name."""
    plain = [p for p in _entries(folder / "anat") if is_image(p)]
    if plain:
        return plain
    sessions = [p for p in _entries(folder) if p.name.startswith("ses-") and p.is_dir()]
    if len(sessions) > 1 and located is not None:
        text = ", ".join(p.name for p in sessions)
        located.findings.append(Finding("SET-SESSIONS", case, display_path(folder, root), text))
    return [p for p in _entries(sessions[0] / "anat") if is_image(p)] if sessions else []


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder by name; empty where it cannot be read."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []
