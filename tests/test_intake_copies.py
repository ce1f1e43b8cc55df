"""Slices and series that were sent twice under new UIDs are used once."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_maker import SIEMENS, uid, write_series

import gliofed
from gliofed.ingest.plan import SeriesPlan, SeriesStatus
from gliofed.runtime.progress import NoProgress

T2 = SIEMENS["T2"]


def take(root: Path) -> tuple[gliofed.IngestResult, dict[tuple[int, int], SeriesPlan]]:
    """Plans by study, from 1, and series number."""
    account = gliofed.intake(gliofed.IngestRequest(str(root / "in"), root / "out"), NoProgress())
    plans = {
        (number, v.series.first.number): v
        for o in account.outcomes
        for number, s in enumerate(o.plan.studies, start=1)
        for v in s.series_plans
    }
    return account, plans


def brighter(data) -> None:
    pixels = np.frombuffer(data.PixelData, np.int16).copy()
    pixels[0] += 1
    data.PixelData = pixels.tobytes()


def sent_again(number: int | None = None, study: str = "", other: tuple[int, ...] = ()):
    """New UIDs, the pixels of number 5; of slices `other` one pixel differs. number: also a new
    series, of this number."""

    def change(data, index) -> None:
        data.SOPInstanceUID = uid("again", number, index)
        if number is not None:
            data.SeriesNumber, data.SeriesInstanceUID = number, uid("again", number)
            data.FrameOfReferenceUID = uid("again", "frame", number)
        if study:
            data.StudyInstanceUID = study
        if index in other:
            brighter(data)

    return change


def converted(root: Path) -> np.ndarray:
    (path,) = (root / "out").glob("sub-*/anat/*_T2w.nii.gz")
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.process
@pytest.mark.parametrize("kept", [range(12), range(9, 12)])
def test_slices_sent_twice_are_used_once(tmp_path, kept) -> None:
    made = write_series(tmp_path / "in", T2, number=5)
    drop = tuple(set(range(12)) - set(kept))
    write_series(tmp_path / "in/b", T2, number=5, change=sent_again(), drop=drop)
    account, plans = take(tmp_path)
    assert account.status == 0
    assert plans[1, 5].status is SeriesStatus.SELECTED
    assert f"{len(kept)} slices are copies of others" in plans[1, 5].guess.reason
    assert np.sort(converted(tmp_path).ravel()).tolist() == np.sort(made.voxels.ravel()).tolist()


@pytest.mark.process
def test_one_pixel_makes_another_slice_which_is_never_dropped(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in/b", T2, number=5, change=sent_again(other=(4,)))
    _, plans = take(tmp_path)
    assert plans[1, 5].status is SeriesStatus.FAULTY
    assert "1 slices share a position with another" in str(plans[1, 5].fault)


@pytest.mark.process
def test_black_slices_of_two_echoes_are_no_copies(tmp_path) -> None:
    def echo(time: float):
        def change(data, index) -> None:
            data.EchoTime, data.SOPInstanceUID = time, uid("echo", time, index)
            if index in (0, 11):
                data.PixelData = bytes(len(data.PixelData))

        return change

    for time in (12.0, 93.0):
        write_series(tmp_path / "in" / f"{time}", T2, number=5, change=echo(time))
    _, plans = take(tmp_path)
    assert all(len(v.series.headers) == 12 for v in plans.values())


@pytest.mark.process
def test_an_enhanced_file_sent_twice_is_used_once(tmp_path) -> None:
    def again(data) -> None:
        data.SOPInstanceUID = uid("again")

    write_series(tmp_path / "in", T2, number=5, enhanced=lambda data: None)
    write_series(tmp_path / "in/b", T2, number=5, enhanced=again)
    account, plans = take(tmp_path)
    assert (account.status, plans[1, 5].status) == (0, SeriesStatus.SELECTED)


@pytest.mark.process
@pytest.mark.parametrize("drop", [(), (0, 1), (5,)])
def test_a_series_within_another_is_a_copy_of_it(tmp_path, drop) -> None:
    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in/b", T2, number=5, change=sent_again(2), drop=drop)
    account, plans = take(tmp_path)
    used, copy = (5, 2) if drop else (2, 5)
    assert account.status == 0
    assert plans[1, used].status is SeriesStatus.SELECTED
    assert plans[1, copy].status is SeriesStatus.SKIPPED
    assert plans[1, copy].guess.reason == (
        f"a copy of series {used}: identical pixels at the same positions"
    )


@pytest.mark.process
def test_a_repeat_with_one_other_pixel_needs_a_decision(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in/b", T2, number=5, change=sent_again(9, other=(11,)))
    account, plans = take(tmp_path)
    assert account.status == 1
    assert {v.status for v in plans.values()} == {SeriesStatus.UNDECIDED}


@pytest.mark.process
def test_a_study_sent_twice_is_one_study(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in", SIEMENS["FLAIR"], number=6)
    write_series(tmp_path / "in/b", T2, number=5, change=sent_again(5, study="1.2.3"))
    account, _ = take(tmp_path)
    assert account.status == 0
    (outcome,) = account.outcomes
    plans = [v for s in outcome.plan.studies for v in s.series_plans]
    assert {v.status for v in plans if v.series.first.study == "1.2.3"} == {SeriesStatus.SKIPPED}
    assert len(list((tmp_path / "out").glob("sub-*/anat/*.nii.gz"))) == 2


@pytest.mark.process
def test_a_decision_on_a_series_is_one_on_its_copies(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in/b", T2, number=5, change=sent_again(9))
    account, plans = take(tmp_path)
    rows = (account.private / "series.tsv").read_text().splitlines()
    name = next(r.split("\t")[-1] for r in rows if r.split("\t")[2] == "5")
    for word, number, sequence in (("T2", 5, "T2"), ("skip", 5, None)):
        text = f"series\tdecision\n{name}\t{word}\n"
        account.decisions.write_text(text)
        _, plans = take(tmp_path)
        assert plans[1, number].sequence == sequence
        assert plans[1, 9].status is SeriesStatus.SKIPPED
        assert "a copy of series 5" in plans[1, 9].guess.reason


@pytest.mark.process
def test_copies_that_are_recognised_as_different_sequences_need_a_decision(tmp_path) -> None:
    def contrast(data, index) -> None:
        sent_again(9)(data, index)
        data.SeriesDescription = data.ProtocolName = "t1_mprage_sag_KM"

    write_series(tmp_path / "in", SIEMENS["T1"], number=5)
    write_series(tmp_path / "in/b", SIEMENS["T1"], number=5, change=contrast)
    account, plans = take(tmp_path)
    assert account.status == 1
    assert sorted(v.status for v in plans.values()) == [
        SeriesStatus.UNDECIDED,
        SeriesStatus.SELECTED,
    ]
