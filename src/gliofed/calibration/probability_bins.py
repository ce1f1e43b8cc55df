"""The bins of probability in which sites count their cases; counts of sites add."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.intervals.bootstrap import Values

BINS: Final = 200
"""Bins of width 0.005, the largest error of a threshold."""
EDGES: Final[Values] = np.arange(BINS + 1) / BINS
Counts = NDArray[np.int64]


def bin_indices(values: Values) -> NDArray[np.int64]:
    """The bin of each value: its lower edge belongs to it. Values outside 0 to 1 are in the
    last."""
    found = np.searchsorted(EDGES, values, side="right") - 1
    return np.clip(found, 0, BINS - 1).astype(np.int64)


def counts_at_or_above(counts: Counts) -> Counts:
    """(..., BINS) counts to the number at or above each bin's lower edge."""
    above: Counts = counts[..., ::-1].cumsum(-1)[..., ::-1]
    return above
