"""Which of the four sequences an image shows, by the words of its file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gliofed.types import Sequence

_SEQUENCES: Final[Mapping[str, Sequence]] = {
    **dict.fromkeys(
        ("t1", "t1n", "t1w", "t1pre", "t1native", "mprage", "mp2rage", "bravo", "spgr"),
        Sequence.T1,
    ),
    **dict.fromkeys(
        ("t1ce", "t1gd", "t1c", "t1c+", "t1+c", "t1gad", "t1km", "t1post", "t1wce"), Sequence.T1CE
    ),
    **dict.fromkeys(("t2", "t2w"), Sequence.T2),
    **dict.fromkeys(("flair", "fl", "fla", "t2f", "t2flair", "flairt2", "tirm"), Sequence.FLAIR),
}
"""The last of these words counts; T2 beside FLAIR is FLAIR."""
_CONTRAST: Final = frozenset(
    {"gd", "km", "post", "ce", "gad", "gadolinium", "contrast", "postcontrast", "enhanced"}
    | {"+c", "c+", "+gd", "+km"}
)
"""With one of these words, T1 is T1CE."""
_NO_CONTRAST: Final = frozenset({"no", "non", "without", "ohne", "sans", "sin", "pre", "nativ"})
_MASKS: Final = frozenset(
    {"seg", "segm", "mask", "label", "glistrboost", "segmentation", "tumorseg", "tumourseg", "dseg"}
)
_OTHER_MASKS: Final = frozenset({"brain", "parenchyma", "bet"})
"""Words of masks that are not of a tumour."""
_OTHERS: Final = frozenset(
    {"adc", "dwi", "dti", "swi", "asl", "pwi", "dsc", "dce", "fa", "md", "perfusion", "bold"}
    | {"localizer", "localiser", "scout", "pd", "t2star", "swan", "tof", "mra", "cbv", "cbf"}
    | {"mtt", "trace", "hardi", "mrs", "t1map", "t2map"}
)
"""Words of images of other sequences."""


@dataclass(frozen=True)
class NamedImage:
    """What a name says. mask: of a tumour. sequence: None if it names none of the four. other: of
    another sequence, or a mask that is not of a tumour."""

    mask: bool
    sequence: Sequence | None
    other: bool


def read_name(name: str) -> NamedImage:
    """The words of a file's name without its ending."""
    words = re.split(r"[^a-z0-9+]+", name.lower())
    others = bool(_OTHERS.intersection(words))
    for word in reversed(words):
        if word in _MASKS:
            tumour = _OTHER_MASKS.isdisjoint(words)
            return NamedImage(tumour, None, not tumour)
        if word in _SEQUENCES:
            return NamedImage(False, _with_contrast(_SEQUENCES[word], words), False)
    return NamedImage(False, None, others or not _OTHER_MASKS.isdisjoint(words))


def _with_contrast(sequence: Sequence, words: list[str]) -> Sequence:
    if sequence is Sequence.T1:
        enhanced = not _CONTRAST.isdisjoint(words) and _NO_CONTRAST.isdisjoint(words)
        return Sequence.T1CE if enhanced else Sequence.T1
    if sequence is Sequence.T2 and ("flair", "t2") in pairwise(words):
        return Sequence.FLAIR
    return sequence
