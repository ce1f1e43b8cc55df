"""The layout of nnU-Net (Isensee et al. 2021, Nature Methods 18:203).

    dataset.json                   channel_names: {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    imagesTr/CASE_0000.nii.gz      one file a channel; imagesTs the same, without labels
    labelsTr/CASE.nii.gz           whole tumour is above 0
    labels.csv                     yours, if you have one: patient (the case), then as in `brats`

A channel's name gives its sequence. Without labels.csv, markers are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading
from gliofed.data.formats.brats import read_user_labels
from gliofed.data.formats.layout import CandidateCase, build_reading
from gliofed.data.image_files import image_stem, is_image
from gliofed.data.sequence_names import read_name
from gliofed.errors import DataError
from gliofed.tables import read_json
from gliofed.types import Sequence

DATASET: Final = "dataset.json"
_CHANNEL: Final = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.ASCII)
_IMAGES: Final = {"imagesTr": "labelsTr", "imagesTs": "labelsTs", "imagesVal": "labelsVal"}


@dataclass(frozen=True)
class NnunetCase:
    """One case. mask: None without a file of labels."""

    name: str
    images: Mapping[Sequence, Path]
    mask: Path | None


def is_channel(path: Path) -> bool:
    """Whether an image's name ends with a channel's number of four digits."""
    return is_image(path) and _CHANNEL.fullmatch(image_stem(path)) is not None


def find_cases(root: Path) -> tuple[NnunetCase, ...]:
    """The cases of a data set's folder, or of one of its folders of images, by name.

    Empty where it is neither: without dataset.json in it or above it, or without such files.
    Raises DataError for a dataset.json that cannot be read or names no channels, and two files of
    one channel.
    """
    record = next((p for p in (root / DATASET, root.parent / DATASET) if p.is_file()), None)
    folders = [root / n for n in _IMAGES if (root / n).is_dir()] or [root]
    files = [p for f in folders for p in sorted(f.iterdir()) if is_channel(p)]
    if record is None or not files:
        return ()
    channels = _channels(record)
    images: dict[tuple[Path, str], dict[Sequence, Path]] = {}
    for path in files:
        match = _CHANNEL.fullmatch(image_stem(path))
        sequence = channels.get(int(match["channel"])) if match else None
        if match and sequence is not None:
            own = images.setdefault((path.parent, match["case"]), {})
            if sequence in own:
                raise DataError(
                    f"{path.parent}: {own[sequence].name} and {path.name} are both {sequence} of "
                    f"{match['case']}; keep one"
                )
            own[sequence] = path
    return tuple(
        NnunetCase(name, found, _labels(folder, name)) for (folder, name), found in images.items()
    )


def read(root: Path, site: str) -> DatasetReading:
    """Every case with a channel of the four sequences.

    Raises DataError as `find_cases` and `tables`.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a data set of nnU-Net")
    labels, mapped = read_user_labels(root)
    cases = {c.name: c for c in find_cases(root)}
    candidates = [
        CandidateCase(
            row=name,
            id=name,
            patient=name,
            site=site,
            values=labels.get(name, {}),
            images=cases[name].images if name in cases else {},
            mask=cases[name].mask if name in cases else None,
        )
        for name in sorted({*cases, *labels})
    ]
    return build_reading("nnunet", root, candidates, mapped)


def _channels(path: Path) -> Mapping[int, Sequence | None]:
    record = read_json(path)
    names = record.get("channel_names", record.get("modality"))
    if not isinstance(names, dict) or not all(str(k).isdecimal() for k in names):
        raise DataError(
            f'{path}: names no channels; expected "channel_names": {{"0": "T1", "1": "T1ce", '
            '"2": "T2", "3": "FLAIR"}}'
        )
    channels = {int(k): read_name(str(v)).sequence for k, v in names.items()}
    known = [s for s in channels.values() if s is not None]
    if not known or len(set(known)) < len(known):
        raise DataError(
            f"{path}: its channels are {', '.join(map(str, names.values()))}; expected each of T1, "
            "T1ce, T2 and FLAIR at most once, and one of them"
        )
    return channels


def _labels(folder: Path, case: str) -> Path | None:
    labels = folder.parent / _IMAGES.get(folder.name, "labelsTr")
    if not labels.is_dir():
        return None
    return next(
        (p for p in sorted(labels.iterdir()) if is_image(p) and image_stem(p) == case), None
    )
