"""Finds similar images among many by an index of their tokens, not by comparing all pairs.

Similar images have many equal tokens, and images of different patients next to none. Within each
place of a vector, equal tokens lie side by side once that place's tokens are sorted. Only pairs
found in this way are counted, so work grows with n log n and with the number of equal tokens. The
pairs are exactly those that a comparison of all pairs finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_EVENTS: Final = 4_000_000
"""Equal tokens that are kept before they are added up by pair: 32 MB."""
_ROW_BITS: Final = 31
"""A token of 32 bits and the number of its row are sorted as one number of 63."""
_Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def similar_images(
    images: Sequence[NDArray[np.int32]], shown: NDArray[np.uint8], least: float
) -> Iterator[tuple[int, int]]:
    """Pairs of rows (first < second) with at least `least` equal tokens, in order; least above 0.

    images: parts of one list of F rows, each part (F_i, S, C, T): S sequences, C corners, T tokens.
    shown: (F, S), which sequences a row has; others are not compared. Equal tokens are averaged
    over the sequences that both rows have, and the best corner counts. No pair where F is below 2.
    """
    rows = sum(len(part) for part in images)
    if rows < 2:
        return
    seen = shown != 0
    similar: list[NDArray[np.int64]] = []
    for corner in range(images[0].shape[2]):
        pairs, equal = _equal_tokens(images, seen, corner)
        both = (seen[pairs // rows] & seen[pairs % rows]).sum(axis=1)
        similar.append(pairs[equal >= least * both])
    for pair in np.unique(np.concatenate(similar)):
        yield divmod(int(pair), rows)


def _equal_tokens(
    images: Sequence[NDArray[np.int32]], seen: NDArray[np.bool_], corner: int
) -> _Counts:
    """Pairs of rows with an equal token at one corner, first x F + second, and their number."""
    counts: _Counts = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    waiting: list[NDArray[np.int64]] = []
    for sequence in range(seen.shape[1]):
        rows = np.flatnonzero(seen[:, sequence])
        tokens = np.concatenate([part[:, sequence, corner] for part in images])[rows]
        for events in _pairs_of_equals(tokens, rows, len(seen)):
            waiting.append(events)
            if sum(map(len, waiting)) > MOST_EVENTS:
                counts, waiting = _add(counts, waiting), []
    return _add(counts, waiting)


def _pairs_of_equals(
    tokens: NDArray[np.int32], rows: NDArray[np.intp], total: int
) -> Iterator[NDArray[np.int64]]:
    """One entry, first x total + second, for every two equal tokens of one column.

    tokens: (N, T) of the N `rows`.
    """
    keyed = tokens.T.astype(np.int64) << _ROW_BITS
    keyed |= np.arange(len(rows))
    keyed.sort(axis=1)
    ordered, order = keyed >> _ROW_BITS, keyed & (2**_ROW_BITS - 1)
    column, place = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
    end = place + 1
    while len(place):  # once for each distance within a run of equal tokens
        yield rows[order[column, place]] * total + rows[order[column, end]]
        inside = end + 1 < ordered.shape[1]
        column, place, end = column[inside], place[inside], end[inside] + 1
        equal = ordered[column, end] == ordered[column, place]
        column, place, end = column[equal], place[equal], end[equal]


def _add(counts: _Counts, waiting: Sequence[NDArray[np.int64]]) -> _Counts:
    """The counts with each waiting entry added as one."""
    pairs = np.concatenate([counts[0], *waiting])
    weights = np.concatenate([counts[1], *(np.ones(len(w), np.int64) for w in waiting)])
    unique, inverse = np.unique(pairs, return_inverse=True)
    added = np.zeros(len(unique), np.int64)
    np.add.at(added, inverse, weights)
    return unique, added
