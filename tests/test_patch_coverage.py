"""A study is told where its training samples are much smaller than a brain."""

from __future__ import annotations

import numpy as np
import pytest

from gliofed.experiments.patch_coverage import patch_note
from gliofed.preprocessing.brain_extraction import bounding_box
from gliofed.preprocessing.template import mni152
from gliofed.study import GridConfig


@pytest.mark.parametrize(
    ("patch", "noted"),
    [
        ((20, 20, 20), False), ((25, 25, 25), False), ((20, 20, 16), False),
        ((20, 20, 15), True), ((400, 20, 15), True),
    ],
)  # fmt: skip
def test_both_sides_of_the_part_of_a_brain(make_prepared, patch, noted) -> None:
    cases = [make_prepared(str(size), size=size) for size in (16, 20, 44)]
    assert (patch_note(patch, cases) != "") is noted


def test_the_note_has_the_sizes_and_the_cure(make_prepared) -> None:
    note = patch_note((10, 10, 20), [make_prepared("a", size=20)])
    assert "(10 x 10 x 20 voxels) holds 25% of the median brain (20 x 20 x 20)" in note
    assert "at least [32, 32, 32]" in note
    assert patch_note((10, 10, 20), []) == ""


def test_a_sample_of_the_default_grid_holds_the_brain_of_the_default_space() -> None:
    _, brain = mni152()  # voxels of 1 mm
    sides = [part.stop - part.start for part in bounding_box(brain)]
    grid = GridConfig()
    assert np.all(np.multiply(grid.spacing_mm, grid.patch) >= sides)
    assert not np.all(np.multiply(1.0, (96, 96, 96)) >= sides), "the default of before"
