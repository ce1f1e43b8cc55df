"""Network presets, one frozen row each. A new size is one row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.study import Pooling

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class NetworkSpec:
    """All settings of a network's layers.

    widths: channels at each level, finest first. stem_kernel, stem_stride: the first downsampling
    step. full_level: True keeps one level of `widths[0]` channels at full resolution above the
    stem, as the parent does; False starts at the stem's resolution, and the mask is brought back to
    full resolution by one transposed convolution. convs: 3x3x3 convolutions a level on the way down
    and on the way up. norm: "none" (as the parent) or "group" (Wu & He 2018; batch statistics would
    leak between sites and are unreliable at batch size 1). pool: max pooling between levels (as the
    parent), else a strided convolution. pooling: how the heads read a level (`pooling`). hidden,
    dropout: of each marker's head.
    """

    widths: tuple[int, ...]
    stem_kernel: Triple
    stem_stride: Triple
    full_level: bool
    convs_down: int
    convs_up: int
    norm: Literal["none", "group"]
    pool: bool
    pooling: Pooling
    hidden: int
    dropout: float
    channels_last: bool
    source: str


PARENT: Final = NetworkSpec(
    widths=(32, 64, 128, 256, 512),
    stem_kernel=(9, 9, 9),
    stem_stride=(3, 3, 3),
    full_level=True,
    convs_down=2,
    convs_up=2,
    norm="none",
    pool=True,
    pooling="max",
    hidden=512,
    dropout=0.25,
    channels_last=True,
    source="van der Voort et al. 2023, Neuro-Oncology 25:279 and its supplement",
)

BASE: Final = NetworkSpec(
    widths=(32, 64, 128, 256, 320),
    stem_kernel=(3, 3, 3),
    stem_stride=(1, 1, 1),
    full_level=False,
    convs_down=2,
    convs_up=1,
    norm="group",
    pool=False,
    pooling="mask",
    hidden=256,
    dropout=0.25,
    channels_last=False,
    source="U-Net sized as nnU-Net plans it (Isensee et al. 2021, Nature Methods 18:203), "
    "with the parent's pooling at every level",
)

SMALL: Final = NetworkSpec(
    widths=(24, 48, 96, 192),
    stem_kernel=(3, 3, 3),
    stem_stride=(2, 2, 2),
    full_level=False,
    convs_down=2,
    convs_up=1,
    norm="group",
    pool=False,
    pooling="mask",
    hidden=128,
    dropout=0.25,
    channels_last=False,
    source="BASE with fewer channels and a stride-2 stem, for training on two CPU cores",
)

PRESETS: Final[Mapping[str, NetworkSpec]] = {"parent": PARENT, "base": BASE, "small": SMALL}
