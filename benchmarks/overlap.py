"""How well one scan is known again, and different patients are told apart, by image alone.

    python benchmarks/overlap.py FOLDER [ROW ...]

FOLDER holds hospitals as BIDS data sets of skull-stripped whole brains. Every case is compared
with a changed copy of itself (recall) and with the changed copies of all others (false pairs).
Rows: see CHANGES; without a name, all of them. Intervals are Clopper and Pearson's, 95 %.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from gliofed.data.formats.bids import read_bids
from gliofed.data.nifti import Volume, read_nifti
from gliofed.federated.linkage.server import CORNERS, MIN_EQUAL_TOKENS
from gliofed.federated.linkage.tokens import TOKENS, FederationSalt, study_salt
from gliofed.preprocessing.fingerprint import describe
from gliofed.preprocessing.resampling import resample, target_grid
from gliofed.types import SEQUENCES, Sequence

Volumes = dict[Sequence, Volume]
Change = Callable[[Volume, np.random.Generator], Volume]


def shift(volume: Volume, rng: np.random.Generator) -> Volume:
    """Up to four voxels and a fraction along every axis, padded by six."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ rng.uniform(-5, 0, 3)
    shape = tuple(n + 6 for n in volume.data.shape)
    return Volume(resample(volume.data, volume.affine, shape, affine), affine)


def crop(volume: Volume, rng: np.random.Generator) -> Volume:
    """The brain's box and a margin of 0 to 5 voxels of background at every side."""
    box = ndimage.find_objects((volume.data != 0).astype(np.uint8))[0]
    low, high = rng.integers(0, 6, 3), rng.integers(0, 6, 3)
    data = np.pad(volume.data[box], list(zip(low, high, strict=True)))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (np.array([s.start for s in box]) - low)
    return Volume(data, affine)


def cut(axis: int, end: int, share: float) -> Change:
    """Slices that hold `share` of the brain are lost at one end of an axis."""

    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        data = np.moveaxis(volume.data.copy(), axis, 0)
        data = data[::-1] if end else data
        held = np.cumsum((data != 0).sum(axis=(1, 2)))
        data[: int(np.searchsorted(held, share * held[-1])) + 1] = 0
        data = data[::-1] if end else data
        return Volume(np.moveaxis(data, 0, axis), volume.affine)

    return change


def cut_somewhere(volume: Volume, rng: np.random.Generator) -> Volume:
    return cut(int(rng.integers(3)), int(rng.integers(2)), 0.1)(volume, rng)


def intensity(gamma: float, scale: float = 1.0, offset: float = 0.0) -> Change:
    """scale x value ** gamma + offset within the brain, on values from 0 to 1."""

    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        brain = volume.data != 0
        low, high = volume.data[brain].min(), volume.data[brain].max()
        changed = scale * ((volume.data - low) / (high - low)).clip(0, 1) ** gamma + offset + 0.01
        return Volume(np.where(brain, changed, 0).astype(np.float32), volume.affine)

    return change


def noise(share: float) -> Change:
    """Gaussian noise of `share` of the brain's standard deviation."""

    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        brain = volume.data != 0
        added = rng.normal(0, share * volume.data[brain].std(), volume.data.shape)
        return Volume(np.where(brain, volume.data + added, 0).astype(np.float32), volume.affine)

    return change


def respace(*spacing: float) -> Change:
    """Trilinear on another grid, smoothed first where voxels grow."""

    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        shape, affine = target_grid(volume.data.shape, volume.affine, spacing)
        return Volume(resample(volume.data, volume.affine, shape, affine), affine)

    return change


def cubic(volume: Volume, rng: np.random.Generator) -> Volume:
    """Cubic splines to 0.7 of each voxel side: the background rings and is no longer 0."""
    data = ndimage.zoom(volume.data, 1 / 0.7, order=3, grid_mode=True, mode="grid-constant")
    affine = volume.affine @ np.diag([*(np.array(volume.data.shape) / data.shape), 1])
    return Volume(data, affine)


def turn(degrees: float) -> Change:
    """The head turned about all three axes, as registration to an atlas turns it."""

    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        a = np.deg2rad(degrees) / np.sqrt(3)
        cross = np.array([[0, -a, a], [a, 0, -a], [-a, a, 0]])
        axes = np.linalg.svd(np.eye(3) + cross)
        middle = (volume.affine @ [*(np.array(volume.data.shape) / 2), 1])[:3]
        turned = np.eye(4)
        turned[:3, :3] = axes[0] @ axes[2]
        turned[:3, 3] = middle - turned[:3, :3] @ middle
        shape, target = target_grid(volume.data.shape, volume.affine, (2.0, 2.0, 2.0))
        return Volume(resample(volume.data, turned @ volume.affine, shape, target), target)

    return change


def several(*changes: Change) -> Change:
    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        for one in changes:
            volume = one(volume, rng)
        return volume

    return change


ENDS = {0: ("left", "right"), 1: ("back", "front"), 2: ("bottom", "top")}
CHANGES: dict[str, Change] = {
    "shift": shift,
    "crop": crop,
    **{f"cut {e}": cut(a, i, 0.1) for a, ends in ENDS.items() for i, e in enumerate(ends)},
    "scale": intensity(1, 37, 100),
    "gamma 0.6": intensity(0.6),
    "gamma 1.6": intensity(1.6),
    "noise 0.1": noise(0.1),
    "noise 0.3": noise(0.3),
    "1.5 mm": respace(1.5, 1.5, 1.5),
    "3 mm": respace(3, 3, 3),
    "2 x 2 x 5 mm": respace(2, 2, 5),
    "cubic": cubic,
    "together": several(
        shift, respace(2.5, 2.5, 4), cut_somewhere, intensity(1.4), noise(0.1), crop
    ),
    "cut top 0.2": cut(2, 1, 0.2),
    "turn 3": turn(3),
    "turn 10": turn(10),
}


def rows(
    cases: list[Volumes], salt: FederationSalt, change: Change | None
) -> tuple[NDArray, NDArray]:
    """Tokens (N, 4, 8, TOKENS) and which sequences are shown (N, 4)."""
    tokens = np.zeros((len(cases), len(SEQUENCES), CORNERS, TOKENS), np.int32)
    shown = np.zeros((len(cases), len(SEQUENCES)), np.uint8)
    for number, case in enumerate(cases):
        for place, sequence in enumerate(SEQUENCES):
            if sequence not in case:
                continue
            volume = case[sequence]
            if change is not None:
                volume = change(volume, np.random.default_rng(number))
            vectors = describe(volume.data, volume.affine)
            if vectors is not None:
                tokens[number, place] = salt.image_tokens(vectors, sequence.value)
                shown[number, place] = 1
    return tokens, shown


def equal_tokens(
    image: NDArray[np.int32],
    shown: NDArray[np.uint8],
    images: NDArray[np.int32],
    others: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """(F,) equal tokens of one case with F others: the best corner of the mean over sequences.

    0 where the two cases share no sequence.
    """
    both = (others != 0) & (shown != 0)
    equal = np.count_nonzero(images == image, axis=-1) * both[:, :, None]
    best = equal.sum(axis=1).max(axis=-1, initial=0)
    return np.asarray(best / np.maximum(both.sum(axis=1), 1), np.float64)


def interval(hits: int, n: int) -> str:
    found = stats.binomtest(hits, n).proportion_ci(method="exact")
    return f"{hits} of {n} ({found.low:.3f} to {found.high:.3f})"


def main(folder: Path, names: list[str]) -> None:
    sites = sorted(p.name for p in folder.iterdir() if p.is_dir())
    cases = [
        {s: read_nifti(p) for s, p in case.images.items()}
        for site in sites
        for case in read_bids(folder / site, site)
    ]
    salt = study_salt("benchmark")
    kept = rows(cases, salt, None)
    print("| change | recall (95 % interval) | fewest equal | false pairs | most equal |")
    print("|---|---|---:|---|---:|")
    for name in ["none", *(names or CHANGES)]:
        changed = rows(cases, salt, CHANGES[name]) if name in CHANGES else kept
        like = np.array([equal_tokens(t, s, *changed) for t, s in zip(*kept, strict=True)])
        same, other = np.diag(like), like[~np.eye(len(like), dtype=bool)]
        if name == "none":
            other = like[np.triu_indices(len(like), 1)]
        print(
            f"| {name} | {interval(int((same >= MIN_EQUAL_TOKENS).sum()), len(same))} "
            f"| {same.min():.1f} | "
            f"{int((other >= MIN_EQUAL_TOKENS).sum())} of {len(other)} | {other.max():.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
