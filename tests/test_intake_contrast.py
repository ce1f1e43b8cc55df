"""Intake where pixels contradict what headers state of contrast."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from dicom_maker import SIEMENS, write_series
from made_up_heads import head

from gliofed.ingest.intake import IngestRequest, IngestResult, intake
from gliofed.ingest.plan import SeriesStatus

T1, T1CE, T2 = (SIEMENS[n] for n in ("T1", "T1CE", "T2"))


def series(folder, style, number: int, contrast: bool) -> None:
    """A head of 6 mm voxels under the header of `style`."""
    pixels = head(contrast, seed=number).data[::2, ::2, ::2]

    def show(data, index) -> None:
        data.PixelData = np.ascontiguousarray(pixels[:, :, index].T.astype(np.int16)).tobytes()

    write_series(
        folder,
        style,
        number=number,
        shape=pixels.shape,
        spacing=(6, 6, 6),
        axes=np.eye(3),
        change=show,
    )


def run(tmp_path) -> IngestResult:
    return intake(IngestRequest(str(tmp_path / "in"), tmp_path / "out"))


def images(tmp_path) -> set[str]:
    return {p.name.split("_", 1)[1] for p in (tmp_path / "out").glob("sub-*/anat/*.nii.gz")}


def decide(tmp_path, *words: str) -> None:
    path = tmp_path / "out-private/decisions.tsv"
    lines = path.read_text().splitlines()
    rows = list(csv.reader(lines, delimiter="\t"))
    for row, word in zip(rows[1:], words, strict=True):
        row[-1] = word
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


@pytest.mark.process
@pytest.mark.parametrize("swapped", [False, True])
def test_a_person_is_asked_where_pixels_contradict_the_words(tmp_path, swapped) -> None:
    series(tmp_path / "in", T1, 1, contrast=swapped)
    series(tmp_path / "in", T1CE, 2, contrast=not swapped)
    series(tmp_path / "in", T2, 3, contrast=False)
    result = run(tmp_path)
    if not swapped:
        assert result.status == 0
        assert images(tmp_path) == {"T1w.nii.gz", "ce-gadolinium_T1w.nii.gz", "T2w.nii.gz"}
        return
    assert result.status == 1
    assert images(tmp_path) == {"T2w.nii.gz"}
    plans = result.outcomes[0].plan.studies[0].series_plans
    asked = [p for p in plans if p.status is SeriesStatus.UNDECIDED]
    assert [p.series.first.number for p in asked] == [1, 2]
    assert all("pixels contradict" in p.guess.reason for p in asked)
    assert run(tmp_path).status == 1  # asked again, nothing written
    assert images(tmp_path) == {"T2w.nii.gz"}
    decide(tmp_path, "T1CE", "T1")
    assert run(tmp_path).status == 0
    assert images(tmp_path) == {"T1w.nii.gz", "ce-gadolinium_T1w.nii.gz", "T2w.nii.gz"}
    assert not list((tmp_path / "out").glob(".sub-*"))
