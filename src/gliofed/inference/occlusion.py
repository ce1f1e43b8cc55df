"""Occlusion: how much the network's probabilities fall where a part of the scan is hidden.

A block of the brain is set to 0, the brain's mean after z-scoring, and the network run again
(Zeiler & Fergus 2014, ECCV). Whole sequences are dropped as in training: set to 0 and absent from
the presence code. A fall shows what this network's output rests on, not what the tumour is
(docs/explanation/occlusion-maps.md).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gliofed.data.store import PreparedCase
from gliofed.inference.answer import MarkerOcclusion
from gliofed.inference.forward import DeviceNetwork, predict
from gliofed.markers import BY_ID
from gliofed.models.network import network_from_spec
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.types import SEQUENCES, Sequence

BLOCK_MM: Final = 32.0
MAX_PASSES: Final = 150
_GROWTH: Final = 1.25

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class OcclusionPlan:
    """What will be hidden, one part at a time, and so how often the network is run.

    brain: (X, Y, Z), where any sequence is not 0. corners: the first voxel of each block, which may
    begin before the grid and end after it. side: of every block, in voxels; block_mm: what it was
    rounded from. sequences: those hidden; none where at most one is there. mirror: as in `predict`.
    """

    brain: NDArray[np.bool_]
    corners: tuple[Corner, ...]
    side: Corner
    block_mm: float
    sequences: tuple[Sequence, ...]
    mirror: bool

    @property
    def passes(self) -> int:
        """How often the network is run in all, mirrored passes counted."""
        return (1 + len(self.corners) + len(self.sequences)) * (1 + self.mirror)


def plan_occlusion(
    prepared: PreparedCase,
    tumour: NDArray[np.bool_],
    mirror: bool,
    block_mm: float = BLOCK_MM,
    most: int = MAX_PASSES,
) -> OcclusionPlan:
    """Blocks side by side over the brain, and where these meet the tumour, blocks between them.

    tumour: (X, Y, Z) mask on the prepared grid; may be empty. All blocks have one size, so that
    their falls can be compared. Blocks between others lie half a side off; those that hold most of
    the tumour come first, until `most` passes are planned. Where blocks side by side alone would
    need more, they are made larger. A block without a brain voxel is not hidden.

    Raises ValueError where `block_mm` is not above 0, where `most` leaves no block, and where the
    mask is on another grid.
    """
    brain: NDArray[np.bool_] = (prepared.image != 0).any(0)
    present = tuple(s for s, has in zip(SEQUENCES, prepared.present, strict=True) if has)
    sequences = present if len(present) > 1 else ()
    blocks = most // (1 + mirror) - 1 - len(sequences)
    if not block_mm > 0 or blocks < 1 or tumour.shape != brain.shape:
        raise ValueError(
            f"blocks of {block_mm} mm, {most} passes, mask {tumour.shape} on {brain.shape}"
        )
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)
    while True:
        side = _voxels(block_mm, spacing)
        corners = _covering(brain, side)
        if len(corners) <= blocks:
            break
        block_mm *= _GROWTH
    corners += _between(brain, tumour, side)[: blocks - len(corners)]
    return OcclusionPlan(brain, tuple(corners), side, block_mm, sequences, mirror)


def explain(
    network: DeviceNetwork,
    prepared: PreparedCase,
    plan: OcclusionPlan,
    classes: Mapping[str, str],
    progress: Progress = NO_PROGRESS,
) -> tuple[MarkerOcclusion, ...]:
    """How much the probability of one class a marker falls where each part of the plan is hidden.

    classes: marker id to the class that is explained; all from the same passes. Explained is the
    network's own probability, as `predict` gives it, before any calibration. A voxel of a map has
    the mean fall over the blocks that it lies in, 0 outside the brain; negative where hiding
    raises the probability. progress: counts passes.

    Raises KeyError and ValueError for a marker and a class that do not exist, ValueError for a
    plan of another grid.
    """
    if plan.brain.shape != prepared.image.shape[1:]:
        raise ValueError(f"a plan of {plan.brain.shape} for a case of {prepared.image.shape[1:]}")
    columns = {marker: BY_ID[marker].classes.index(name) for marker, name in classes.items()}
    rows: list[list[float]] = []
    for hidden in _each_hidden(prepared, plan):
        markers = predict(network.net, hidden, network.machine, plan.mirror).markers
        rows.append([markers[marker][column] for marker, column in columns.items()])
        count = len(rows) * (1 + plan.mirror)
        progress.update(count, plan.passes, f"pass {count} of {plan.passes}")
        if not np.isfinite(rows[0]).any():
            break
    probabilities = np.array(rows)
    return tuple(
        _marker_occlusion(plan, m, name, probabilities[:, i])
        for i, (m, name) in enumerate(classes.items())
    )


def drop_sequences(prepared: PreparedCase, hidden: frozenset[Sequence]) -> PreparedCase:
    """The case as if these sequences had not been scanned, as training hides them."""
    image = np.array(prepared.image)
    for channel, sequence in enumerate(SEQUENCES):
        if sequence in hidden:
            image[channel] = 0
    present = tuple(
        has and s not in hidden for s, has in zip(SEQUENCES, prepared.present, strict=True)
    )
    return dataclasses.replace(prepared, image=image, present=present)


def similarity_to_random_weights(
    network: DeviceNetwork,
    prepared: PreparedCase,
    plan: OcclusionPlan,
    occlusions: tuple[MarkerOcclusion, ...],
    seed: int,
) -> Mapping[str, float | None]:
    """How similar each marker's map is to that of the same layers with weights made from `seed`.

    Spearman's rank correlation over the brain's voxels; near 0 where the map shows what training
    put into the weights (Adebayo et al. 2018, NeurIPS 31). None for a map that is absent or the
    same everywhere. Runs the network as often as `explain`.
    """
    random = network_from_spec(network.net.spec, seed).to(network.machine.device)
    classes = {o.marker: o.class_name for o in occlusions}
    others = explain(DeviceNetwork(random, network.machine), prepared, plan, classes)
    return {
        trained.marker: _rank_correlation(trained, other, plan)
        for trained, other in zip(occlusions, others, strict=True)
    }


def _each_hidden(prepared: PreparedCase, plan: OcclusionPlan) -> Iterator[PreparedCase]:
    """The case itself, then with each block hidden, then without each sequence."""
    yield prepared
    for corner in plan.corners:
        image = np.array(prepared.image)
        image[:, *_box(corner, plan.side)] = 0
        yield dataclasses.replace(prepared, image=image)
    for sequence in plan.sequences:
        yield drop_sequences(prepared, frozenset({sequence}))


def _marker_occlusion(
    plan: OcclusionPlan, marker: str, name: str, probabilities: NDArray[np.float64]
) -> MarkerOcclusion:
    """probabilities: of the plan's passes, or of the first alone where that is not finite."""
    whole = float(probabilities[0])
    if not np.isfinite(whole):
        return MarkerOcclusion(marker, name, whole, None, {})
    falls = whole - probabilities[1:]
    blocks, dropped = falls[: len(plan.corners)], falls[len(plan.corners) :]
    regions = _merged(plan, blocks) if plan.corners and np.isfinite(blocks).all() else None
    sequences = dict(zip(plan.sequences, dropped.tolist(), strict=True))
    return MarkerOcclusion(marker, name, whole, regions, sequences)


def _merged(plan: OcclusionPlan, falls: NDArray[np.float64]) -> NDArray[np.float32]:
    """(X, Y, Z): the mean fall over the blocks that a voxel lies in, 0 outside the brain."""
    total = np.zeros(plan.brain.shape)
    count = np.zeros(plan.brain.shape, np.int64)
    for corner, fall in zip(plan.corners, falls, strict=True):
        box = _box(corner, plan.side)
        total[box] += fall
        count[box] += 1
    return np.where(plan.brain, total / np.maximum(count, 1), 0).astype(np.float32)


def _rank_correlation(
    first: MarkerOcclusion, second: MarkerOcclusion, plan: OcclusionPlan
) -> float | None:
    if first.regions is None or second.regions is None:
        return None
    a, b = first.regions[plan.brain], second.regions[plan.brain]
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def _covering(brain: NDArray[np.bool_], side: Corner) -> list[Corner]:
    """Corners of blocks side by side that hold a brain voxel, centred on the brain's box."""
    x, y, z = (_starts(brain, axis, side[axis]) for axis in range(3))
    return [c for c in itertools.product(x, y, z) if brain[_box(c, side)].any()]


def _between(brain: NDArray[np.bool_], tumour: NDArray[np.bool_], side: Corner) -> list[Corner]:
    """Corners half a side from those, along one axis or more, most of the tumour first.

    Blocks without a tumour voxel in the brain are left out.
    """
    inside = tumour & brain
    aligned = [_starts(brain, axis, side[axis]) for axis in range(3)]
    x, y, z = (
        sorted({*starts, *(start + length // 2 for start in starts[:-1])})
        for starts, length in zip(aligned, side, strict=True)
    )
    aligned_corners = set(itertools.product(*aligned))
    tumour_voxels = {
        corner: int(inside[_box(corner, side)].sum())
        for corner in itertools.product(x, y, z)
        if corner not in aligned_corners
    }
    return sorted((c for c, n in tumour_voxels.items() if n > 0), key=lambda c: -tumour_voxels[c])


def _starts(brain: NDArray[np.bool_], axis: int, length: int) -> list[int]:
    """Along an axis, the first voxels of blocks side by side; none without a brain."""
    filled = np.flatnonzero(brain.any(tuple({0, 1, 2} - {axis})))
    if not len(filled):
        return []
    low, extent = int(filled[0]), int(filled[-1] - filled[0] + 1)
    count = -(-extent // length)
    start = low - (count * length - extent) // 2
    return [start + i * length for i in range(count)]


def _voxels(block_mm: float, spacing_mm: NDArray[np.float64]) -> Corner:
    x, y, z = (max(1, round(block_mm / s)) for s in spacing_mm.tolist())
    return x, y, z


def _box(corner: Corner, side: Corner) -> tuple[slice, slice, slice]:
    """The part of a block that lies on the grid."""
    x, y, z = (slice(max(c, 0), c + s) for c, s in zip(corner, side, strict=True))
    return x, y, z
