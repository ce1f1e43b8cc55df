"""Occlusion: fall of the network's probabilities when a part of the scan is removed.

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

from gliofed.data.store import PreparedCase
from gliofed.inference.answer import MarkerOcclusion
from gliofed.inference.forward import DeviceNetwork, drop_sequences, predict
from gliofed.markers import BY_ID
from gliofed.models.ensemble import members_of
from gliofed.models.network import network_from_spec
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.types import SEQUENCES, Sequence

BLOCK_MM: Final = 32.0
MAX_PASSES: Final = 150
_GROWTH: Final = 1.25

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class OcclusionPlan:
    """The parts to occlude one at a time, and thereby the number of network passes.

    brain: (X, Y, Z), where any sequence is not 0. corners: the first voxel of each block, which may
    extend beyond the grid. side: of every block, in voxels; block_mm: before rounding to voxels.
    sequences: those to drop; empty with at most one present. mirror: as in `predict`.
    """

    brain: NDArray[np.bool_]
    corners: tuple[Corner, ...]
    side: Corner
    block_mm: float
    sequences: tuple[Sequence, ...]
    mirror: bool

    @property
    def passes(self) -> int:
        """Total number of network passes, mirrored ones included."""
        return (1 + len(self.corners) + len(self.sequences)) * (1 + self.mirror)


def plan_occlusion(
    prepared: PreparedCase,
    tumour: NDArray[np.bool_],
    mirror: bool,
    block_mm: float = BLOCK_MM,
    most: int = MAX_PASSES,
) -> OcclusionPlan:
    """Plan adjacent blocks over the brain and, at the tumour, blocks halfway between them.

    tumour: (X, Y, Z) mask on the prepared grid; may be empty. All blocks have one size, so that
    their falls can be compared. Blocks in between are shifted by half a side; those with most
    tumour come first, until `most` passes are planned. If adjacent blocks alone would need more
    passes, they are made larger. Blocks without a brain voxel are omitted.

    Raises ValueError if `block_mm` is not above 0, if `most` allows no block, or if the mask is on
    another grid.
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
    """Fall of the probability of one class a marker for each occluded part of the plan.

    classes: marker id to the class that is explained; all from the same passes. The probability is
    the network's own, as `predict` gives it, before calibration. A voxel of a map has the mean fall
    over its blocks, 0 outside the brain; it is negative where occlusion raises the probability.
    progress: counts passes.

    Raises KeyError for an unknown marker, ValueError for an unknown class or a plan of another
    grid.
    """
    if plan.brain.shape != prepared.image.shape[1:]:
        raise ValueError(f"a plan of {plan.brain.shape} for a case of {prepared.image.shape[1:]}")
    columns = {marker: BY_ID[marker].classes.index(name) for marker, name in classes.items()}
    rows: list[list[float]] = []
    for occluded in _occluded_cases(prepared, plan):
        markers = predict(network.net, occluded, network.machine, plan.mirror).markers
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


def similarity_to_random_weights(
    network: DeviceNetwork,
    prepared: PreparedCase,
    plan: OcclusionPlan,
    occlusions: tuple[MarkerOcclusion, ...],
    seed: int,
) -> Mapping[str, float | None]:
    """Similarity of each marker's map to that of a network with random weights from `seed`.

    Spearman's rank correlation over the brain's voxels; near 0 if the map depends on the trained
    weights (Adebayo et al. 2018, NeurIPS 31). None for a map that is absent or constant. Runs the
    network as often as `explain`.
    """
    random = network_from_spec(members_of(network.net)[0].spec, seed).to(network.machine.device)
    classes = {o.marker: o.class_name for o in occlusions}
    others = explain(DeviceNetwork(random, network.machine), prepared, plan, classes)
    return {
        trained.marker: _rank_correlation(trained, other, plan)
        for trained, other in zip(occlusions, others, strict=True)
    }


def _occluded_cases(prepared: PreparedCase, plan: OcclusionPlan) -> Iterator[PreparedCase]:
    """Yield the case itself, then with each block occluded, then without each sequence."""
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
    """probabilities: of the plan's passes, or of the first alone if that is not finite."""
    whole = float(probabilities[0])
    if not np.isfinite(whole):
        return MarkerOcclusion(marker, name, whole, None, {})
    falls = whole - probabilities[1:]
    blocks, dropped = falls[: len(plan.corners)], falls[len(plan.corners) :]
    regions = _merged(plan, blocks) if plan.corners and np.isfinite(blocks).all() else None
    sequences = dict(zip(plan.sequences, dropped.tolist(), strict=True))
    return MarkerOcclusion(marker, name, whole, regions, sequences)


def _merged(plan: OcclusionPlan, falls: NDArray[np.float64]) -> NDArray[np.float32]:
    """(X, Y, Z): mean fall over the blocks of each voxel, 0 outside the brain."""
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
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def _covering(brain: NDArray[np.bool_], side: Corner) -> list[Corner]:
    """Corners of adjacent blocks with a brain voxel, centred on the brain's bounding box."""
    x, y, z = (_starts(brain, axis, side[axis]) for axis in range(3))
    return [c for c in itertools.product(x, y, z) if brain[_box(c, side)].any()]


def _between(brain: NDArray[np.bool_], tumour: NDArray[np.bool_], side: Corner) -> list[Corner]:
    """Corners half a side from those, along one axis or more, most of the tumour first.

    Blocks without a tumour voxel in the brain are omitted.
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
    """Along an axis, the first voxels of adjacent blocks; empty without a brain."""
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
