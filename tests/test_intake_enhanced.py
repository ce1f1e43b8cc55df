"""Enhanced multi-frame MR: taken in as the classic slices of the same scan, or told why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_maker import SIEMENS, Who, turned, uid, write_series
from pydicom.uid import RLELossless

import gliofed
from gliofed.dicom.frames import write_slices
from gliofed.dicom.headers import read_headers
from gliofed.ingest.contrast_evidence import StudyContrast
from gliofed.ingest.plan import SeriesPlan, SeriesStatus
from gliofed.ingest.recognition import exclusion_reason, recognise
from gliofed.ingest.series import find_series
from gliofed.runtime.progress import NO_PROGRESS, NoProgress

XA, PHILIPS = "SIEMENS", "Philips Medical Systems"
MAKERS = pytest.mark.parametrize("vendor", [XA, PHILIPS])
NO_CLOCK = StudyContrast()


def as_is(data) -> None:
    pass


def frames_of(data):
    return list(data.PerFrameFunctionalGroupsSequence)


def in_other_order(order, numbered: bool):
    """Frames stored in another order; numbered: their dimension index says the stored order."""

    def change(data):
        frames, count = frames_of(data), data.NumberOfFrames
        pixels = np.frombuffer(data.PixelData, np.uint8).reshape(count, -1)
        rows = order(count)
        data.PixelData = pixels[rows].tobytes()
        data.PerFrameFunctionalGroupsSequence = [frames[r] for r in rows]
        for number, frame in enumerate(frames_of(data), start=1):
            if numbered:
                frame.FrameContentSequence[0].DimensionIndexValues = [1, number]
                frame.FrameContentSequence[0].InStackPositionNumber = number

    return change


def mixed_up(count: int):
    return np.random.default_rng(3).permutation(count)


def backwards(count: int):
    return np.arange(count)[::-1]


ORDERS = {
    "by position": as_is,
    "shuffled, the index by position": in_other_order(mixed_up, False),
    "shuffled, the index as stored": in_other_order(mixed_up, True),
    "backwards, the index as stored": in_other_order(backwards, True),
}


def take(source: Path, out: Path, key: Path) -> tuple[gliofed.IngestResult, list[SeriesPlan]]:
    account = gliofed.intake(gliofed.IngestRequest(str(source), out, key=key), NoProgress())
    return account, [v for o in account.outcomes for s in o.plan.studies for v in s.series_plans]


def write_both(root: Path, vendor: str, change, **over) -> None:
    for number, style in enumerate(SIEMENS.values(), start=1):
        same = {"number": number, "vendor": vendor, "slope": 2.0 if number == 3 else 1.0,
                "intercept": -5.0 if number == 3 else 0.0, **over}  # fmt: skip
        write_series(root / "classic", style, **same)
        write_series(root / "enhanced", style, enhanced=change, **same)


def subject(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.glob("sub-*/anat/*")}


@pytest.mark.process
@MAKERS
@pytest.mark.parametrize("order", ORDERS)
def test_the_hospital_is_the_one_of_the_classic_series(tmp_path, vendor, order) -> None:
    write_both(tmp_path, vendor, ORDERS[order], axes=turned(23.0))
    key = tmp_path / "key"
    for kind in ("classic", "enhanced"):
        account, series_plans = take(tmp_path / kind, tmp_path / f"out-{kind}", key)
        assert account.status == 0
        assert [v.status for v in series_plans] == [SeriesStatus.SELECTED] * 4
        assert {v.series.files for v in series_plans} == {12 if kind == "classic" else 1}
    classic, enhanced = subject(tmp_path / "out-classic"), subject(tmp_path / "out-enhanced")
    assert len(classic) == 8  # four images, four sidecars
    assert enhanced == classic
    assert sorted(p.name for p in (tmp_path / "out-enhanced-private").iterdir()) == sorted(
        p.name for p in (tmp_path / "out-classic-private").iterdir()
    )


@MAKERS
def test_recognised_as_the_classic_series(tmp_path, vendor) -> None:
    write_both(tmp_path, vendor, as_is)
    classic, enhanced = (
        [recognise(s.first, NO_CLOCK) for s in find_series(tmp_path / kind, NO_PROGRESS).series]
        for kind in ("classic", "enhanced")
    )
    assert [g.candidates[0].value for g in enhanced] == list(SIEMENS)
    assert enhanced == classic


@pytest.mark.process
def test_packed_frames_are_taken(tmp_path) -> None:
    write_both(tmp_path, PHILIPS, as_is)
    for path in (tmp_path / "enhanced").iterdir():
        data = pydicom.dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(path)
    for kind in ("classic", "enhanced"):
        take(tmp_path / kind, tmp_path / f"out-{kind}", tmp_path / "key")
    assert len(subject(tmp_path / "out-classic")) == 8
    assert subject(tmp_path / "out-enhanced") == subject(tmp_path / "out-classic")


@pytest.mark.process
def test_a_legacy_converted_image_is_taken(tmp_path) -> None:
    legacy = pytest.importorskip("highdicom.legacy")
    made = write_series(tmp_path / "classic", SIEMENS["T2"])
    images = [pydicom.dcmread(p) for p in made.files]
    for image in images:
        image.ContentQualification, image.VolumetricProperties = "RESEARCH", "VOLUME"
        image.StudyID = image.AccessionNumber = ""
        image.ReferringPhysicianName, image.PositionReferenceIndicator = "", ""
    first = images[0]
    (tmp_path / "enhanced").mkdir()
    joined = legacy.LegacyConvertedEnhancedMRImage(
        images, first.SeriesInstanceUID, first.SeriesNumber, uid("legacy"), 1
    )
    joined.SeriesDescription = first.SeriesDescription
    joined.save_as(tmp_path / "enhanced/one")
    for kind in ("classic", "enhanced"):
        take(tmp_path / kind, tmp_path / f"out-{kind}", tmp_path / "key")
    name = next(n for n in subject(tmp_path / "out-classic") if n.endswith(".nii.gz"))
    assert subject(tmp_path / "out-enhanced")[name] == subject(tmp_path / "out-classic")[name]


@pytest.mark.process
def test_the_same_file_twice_is_one_copy(tmp_path) -> None:
    made = write_series(tmp_path / "in", SIEMENS["T2"], enhanced=as_is)
    shutil.copy(made.files[0], tmp_path / "in/again")
    account, (series_plan,) = take(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    assert (account.copies, account.status, series_plan.status) == (1, 0, SeriesStatus.SELECTED)


def test_slices_for_the_converter_name_nobody(tmp_path) -> None:
    who = Who(extra={"InstitutionName": "St. Adalbert"})
    made = write_series(tmp_path / "in", SIEMENS["T1CE"], who=who, vendor=PHILIPS, enhanced=as_is)
    for path in write_slices(read_headers(made.files[0]), tmp_path / "frames"):
        text = path.read_bytes()
        assert not any(w in text for w in (b"Rotkehl", b"4711-0815", b"19610214", b"Adalbert"))


def at_one_place(data) -> None:
    """Two echoes at each place, each echo with a slope of its own."""
    frames = frames_of(data)
    for number, frame in enumerate(frames):
        frame.PlanePositionSequence = frames[number - number % 2].PlanePositionSequence
        frame.MREchoSequence[0].EffectiveEchoTime = 93.0 if number % 2 else 12.0
        frame.PixelValueTransformationSequence[0].RescaleSlope = 1 + number % 2


def one_group_short(data) -> None:
    data.PerFrameFunctionalGroupsSequence = frames_of(data)[:-1]


def no_groups(data) -> None:
    del data.PerFrameFunctionalGroupsSequence


def cut_pixels(data) -> None:
    data.PixelData = data.PixelData[:-2]


def group_without(name: str):
    def change(data):
        for frame in frames_of(data)[3:5]:
            delattr(frame, name)

    return change


def other_slope(data) -> None:
    frames_of(data)[5].PixelValueTransformationSequence[0].RescaleSlope = 3


def no_frames_said(data) -> None:
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"


FAULTS = {
    "one description short": (one_group_short, "not each described"),
    "no descriptions": (no_groups, "not each described"),
    "a classic image of many frames": (no_frames_said, "not each described"),
    "pixels cut": (cut_pixels, "truncated"),
    "no position": (group_without("PlanePositionSequence"), "2 slices have no position"),
    "no orientation": (group_without("PlaneOrientationSequence"), "have no position, orientation"),
    "no spacing": (group_without("PixelMeasuresSequence"), "have no position, orientation"),
    "one slope of its own": (other_slope, "two rescale slopes"),
}


@pytest.mark.process
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_stops_nothing_else(tmp_path, fault) -> None:
    change, message = FAULTS[fault]
    write_series(tmp_path / "in", SIEMENS["T2"], number=5, vendor=PHILIPS, enhanced=change)
    write_series(tmp_path / "in", SIEMENS["FLAIR"], number=6, vendor=PHILIPS, enhanced=as_is)
    account, (bad, good) = take(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    assert (account.status, bad.status, good.status) == (
        1,
        SeriesStatus.FAULTY,
        SeriesStatus.SELECTED,
    )
    assert message in bad.fault.what
    assert bad.fault.cure


@pytest.mark.process
@pytest.mark.parametrize(
    ("drop", "state", "message"),
    [((), SeriesStatus.SELECTED, ""), ((0,), SeriesStatus.SELECTED, ""), ((4, 5), SeriesStatus.FAULTY, "2 missing between"),
     ((0, 1, 2), SeriesStatus.FAULTY, "9 slices")],
)  # fmt: skip
@MAKERS
def test_missing_frames_are_missing_slices(tmp_path, vendor, drop, state, message) -> None:
    over = {"spacing": (1.0, 1.0, 4.0), "vendor": vendor, "enhanced": as_is}
    write_series(tmp_path / "in", SIEMENS["T2"], drop=drop, **over)
    _, (series_plan,) = take(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    assert series_plan.status is state
    assert message in str(series_plan.fault or "")


@pytest.mark.process
def test_two_echoes_in_a_file_are_split_and_the_t2_is_used(tmp_path) -> None:
    made = write_series(tmp_path / "in", SIEMENS["T2"], vendor=PHILIPS, shape=(20, 16, 24),
                        enhanced=at_one_place)  # fmt: skip
    account, plans = take(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    assert account.status == 0
    assert [(p.series.first.timing.echo, p.status) for p in plans] == [
        (12, SeriesStatus.SKIPPED), (93, SeriesStatus.SELECTED)
    ]  # fmt: skip
    (path,) = (tmp_path / "out").glob("sub-*/anat/*_T2w.nii.gz")
    values = np.asarray(nib.load(path).dataobj)
    assert values.sum() == made.voxels[..., 1::2].sum() * 2


@pytest.mark.process
@pytest.mark.parametrize("other", ["enhanced", "classic"])
def test_several_files_in_a_series_are_refused(tmp_path, other) -> None:
    def of_series_1(data, index=0):
        data.SeriesInstanceUID = uid("both")

    write_series(tmp_path / "a", SIEMENS["T2"], number=1, enhanced=of_series_1)
    over = {"enhanced": of_series_1} if other == "enhanced" else {"change": of_series_1}
    write_series(tmp_path / "b", SIEMENS["T2"], number=2, **over)
    for name in "ab":
        shutil.copytree(tmp_path / name, tmp_path / "in", dirs_exist_ok=True)
    _, (series_plan,) = take(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    assert series_plan.status is SeriesStatus.FAULTY
    assert "an enhanced multi-frame file and others" in series_plan.fault.what


def every(group: str, **values):
    def change(data):
        for frame in frames_of(data):
            if group not in frame:
                setattr(frame, group, [pydicom.Dataset()])
            for name, value in values.items():
                setattr(getattr(frame, group)[0], name, value)

    return change


def root(**values):
    def change(data):
        for name, value in values.items():
            setattr(data, name, value)

    return change


FRAME_TYPE, DIFFUSION = "MRImageFrameTypeSequence", "MRDiffusionSequence"
KINDS = {
    "as it is": (as_is, ""),
    "no diffusion, and b is 0": (every(DIFFUSION, DiffusionBValue=0.0), ""),
    "b is 1000": (every(DIFFUSION, DiffusionBValue=1000.0), "diffusion (it has a b-value)"),
    "diffusion, and b is 0": (every(FRAME_TYPE, AcquisitionContrast="DIFFUSION"), "image type DIFFUSION"),
    "perfusion": (every(FRAME_TYPE, AcquisitionContrast="PERFUSION"), "perfusion"),
    "phase": (every(FRAME_TYPE, ComplexImageComponent="PHASE"), "a phase"),
    "projection": (every(FRAME_TYPE, FrameType=["DERIVED", "PRIMARY", "M", "MAX_IP"]), "a projection"),
    "time of flight": (root(TimeOfFlightContrast="YES"), "angiography"),
    "phase contrast": (root(PhaseContrast="YES"), "angiography"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_frames_tell_of_their_kind(tmp_path, kind) -> None:
    change, reason = KINDS[kind]
    write_series(tmp_path / "in", SIEMENS["T2"], vendor=PHILIPS, enhanced=change)
    (series,) = find_series(tmp_path / "in", NO_PROGRESS).series
    told = exclusion_reason(series.first)
    assert reason in told
    assert bool(told) == bool(reason)


def used(answer: str):
    return every("ContrastBolusUsageSequence", ContrastBolusAgentAdministered=answer,
                 ContrastBolusAgentNumber=1)  # fmt: skip


def no_usage(data) -> None:
    for frame in frames_of(data):
        del frame.ContrastBolusUsageSequence


def agent(name: str):
    def change(data):
        data.ContrastBolusAgentSequence[0].CodeMeaning = name

    return change


def injected(data) -> None:
    start = pydicom.Dataset()
    start.ContrastBolusStartTime = "103000"
    data.ContrastBolusAgentSequence[0].ContrastAdministrationProfileSequence = [start]
    used("NO")(data)


AGENTS = {
    "given": (used("YES"), True, None),
    "not yet given": (used("NO"), False, None),
    "given later": (injected, False, 37800.0),
    "not said for frames": (no_usage, True, None),
    "an agent called none": (agent("None"), False, None),
    "an agent without a name": (agent(""), True, None),
}


@pytest.mark.parametrize("case", AGENTS)
def test_contrast_is_told_for_a_frame(tmp_path, case) -> None:
    change, has, start = AGENTS[case]
    made = write_series(tmp_path / "in", SIEMENS["T1CE"], vendor=PHILIPS, enhanced=change)
    timings = {h.timing for h in read_headers(made.files[0])}
    assert {(t.agent, t.injected) for t in timings} == {(has, start)}


def test_times_and_pulse_sequence_of_frames(tmp_path) -> None:
    def change(data):
        data.EchoPulseSequence, data.EchoPlanarPulseSequence = "BOTH", "YES"
        every("MRModifierSequence", InversionRecovery="NO", InversionTimes=[2500.0])(data)
        frames_of(data)[1].MREchoSequence[0].EffectiveEchoTime = 12.5

    made = write_series(tmp_path / "in", SIEMENS["FLAIR"], vendor=PHILIPS, enhanced=change)
    first, second, *_ = read_headers(made.files[0])
    assert (first.frame, second.frame, first.frames) == (1, 2, 12)
    assert first.timing.sequence == ("SE", "GR", "EP")
    assert (first.timing.echo, second.timing.echo, first.timing.inversion) == (81, 12.5, None)
    assert (first.timing.repetition, first.timing.flip) == (9000, 150)
