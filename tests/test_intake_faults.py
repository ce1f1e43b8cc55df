"""Each fault of a series: found where it is, not where it is not, and no harm to the others."""

from __future__ import annotations

import dataclasses
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_maker import GE, SIEMENS, Who, turned, uid, write_series
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit, RLELossless

import gliofed
from gliofed.errors import DataError
from gliofed.ingest.archive import ArchiveLimits, unpack
from gliofed.ingest.plan import SeriesPlan, SeriesStatus
from gliofed.ingest.series import MIN_SLICES
from gliofed.runtime.progress import NO_PROGRESS, NoProgress

T2, FLAIR = SIEMENS["T2"], SIEMENS["FLAIR"]


def take(root: Path) -> tuple[gliofed.IngestResult, dict[int | None, SeriesPlan]]:
    account = gliofed.intake(gliofed.IngestRequest(str(root / "in"), root / "out"), NoProgress())
    found = [v for o in account.outcomes for s in o.plan.studies for v in s.series_plans]
    return account, {v.series.first.number: v for v in found}


def every(name: str, value: object):
    def change(data, index):
        setattr(data, name, value)

    return change


def some(name: str, value: object):
    """In the upper half of the slices."""

    def change(data, index):
        if index >= 6:
            setattr(data, name, value)

    return change


def without(name: str):
    def change(data, index):
        delattr(data, name)

    return change


def slices(data, index):
    """Half of the slices of another matrix."""
    if index >= 6:
        data.Rows = 8
        data.PixelData = data.PixelData[: 8 * data.Columns * 2]


def moved(shift):
    """Positions moved by what `shift` gives, in steps along the normal, from slice `index` on."""

    def change(data, index):
        step = np.array([float(v) for v in turned()[:, 2]]) * 1.3
        position = np.array([float(v) for v in data.ImagePositionPatient])
        data.ImagePositionPatient = [f"{v:.8f}"[:16] for v in position + shift(index) * step]

    return change


def sideways(mm):
    def change(data, index):
        position = np.array([float(v) for v in data.ImagePositionPatient])
        new = position + turned()[:, 0] * mm * index / 11
        data.ImagePositionPatient = [f"{v:.8f}"[:16] for v in new]

    return change


FAULTS = {
    "wrong modality": (every("Modality", "CT"), "modality CT, not MR"),
    "a path for a study": (every("StudyInstanceUID", "../../etc"), "a UID is not valid"),
    "a path for a series": (every("SeriesInstanceUID", "../../x"), "a UID is not valid"),
    "a path for an instance": (lambda d, i: setattr(d, "SOPInstanceUID", f"../{i}"), "a UID is not valid"),
    "a UID of 65": (every("SeriesInstanceUID", "1" * 65), "a UID is not valid"),
    "no patient id": (every("PatientID", ""), "the patient id is blank"),
    "burned in": (some("BurnedInAnnotation", "YES"), "BurnedInAnnotation is YES"),
    "two patients": (some("PatientID", "someone"), "two patient ids in one series"),
    "two studies": (some("StudyInstanceUID", uid("more")), "two studies in one series"),
    "two orientations": (some("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), "two slice orientations"),
    "two matrices": (slices, "two matrix sizes"),
    "two spacings": (some("PixelSpacing", [1.2, 0.9]), "two pixel spacings"),
    "two frames": (some("FrameOfReferenceUID", uid("other")), "two frames of reference"),
    "two slopes": (some("RescaleSlope", 1.5), "two rescale slopes"),
    "no position": (without("ImagePositionPatient"), "no position, orientation"),
    "no spacing": (without("PixelSpacing"), "no position, orientation, pixel spacing"),
    "skewed": (every("ImageOrientationPatient", [1, 0, 0, 0.1, 1, 0]), "right angle"),
    "no pixels": (without("PixelData"), "no pixel data"),
    "enhanced": (every("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4.1"), "enhanced multi-frame"),
    "frames": (every("NumberOfFrames", 2), "enhanced multi-frame"),
    "secondary capture": (every("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"), "not MR Image Storage"),
    "uneven": (moved(lambda i: 0.4 * (i == 6)), "uneven steps"),
    "sideways": (sideways(0.3), "sideways"),
}  # fmt: skip
SOUND = {
    "positions that vary by a tenth of the step": moved(lambda i: 0.12 * (i % 2)),
    "a UID of 64": every("SeriesInstanceUID", "1" * 64),
    "not burned in": every("BurnedInAnnotation", "NO"),
    "one frame": every("NumberOfFrames", 1),
    "rounded orientations": some("ImageOrientationPatient", [f"{v + 5e-5:.6f}" for v in (*turned()[:, 0], *turned()[:, 1])]),
    "rounded steps": moved(lambda i: 0.03 * (i >= 6)),
    "rounded sideways": sideways(0.05),
    "two echo times a hair apart": some("EchoTime", 93.01),
    "two acquisitions": some("AcquisitionNumber", 2),
    "no frame at all": without("FrameOfReferenceUID"),
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_stops_nothing_else(tmp_path, fault) -> None:
    change, message = FAULTS[fault]
    write_series(tmp_path / "in", T2, number=5, change=change)
    write_series(tmp_path / "in", FLAIR, number=6)
    account, by_number = take(tmp_path)
    assert account.status == 1
    assert by_number[5].status is SeriesStatus.FAULTY
    assert message in str(by_number[5].fault)
    assert by_number[5].fault.cure
    assert by_number[6].status is SeriesStatus.SELECTED
    assert len(list((tmp_path / "out").glob("sub-*/anat/*.nii.gz"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "out-private"]
    text = account.decisions.read_text()
    account.decisions.write_text(text.rstrip("\n") + "skip\n")  # the cure that every row offers
    assert take(tmp_path)[0].status == 0


@pytest.mark.process
@pytest.mark.parametrize("what", SOUND)
def test_what_only_looks_like_a_fault_is_taken(tmp_path, what) -> None:
    write_series(tmp_path / "in", T2, number=5, change=SOUND[what])
    account, by_number = take(tmp_path)
    assert by_number[5].status is SeriesStatus.SELECTED, by_number[5]
    assert account.status == 0


@pytest.mark.process
def test_missing_slices_are_told_with_size_and_place(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5, shape=(20, 16, 16), drop=(4, 5))
    _, by_number = take(tmp_path)
    text = str(by_number[5].fault)
    assert "2 missing between slices 4 and 5, a gap of 3.9 mm at -" in text


@pytest.mark.process
@pytest.mark.parametrize(
    ("count", "state"), [(MIN_SLICES - 1, SeriesStatus.FAULTY), (MIN_SLICES, SeriesStatus.SELECTED)]
)
def test_too_few_slices(tmp_path, count, state) -> None:
    write_series(tmp_path / "in", T2, number=5, shape=(20, 16, count))
    _, by_number = take(tmp_path)
    assert by_number[5].status is state


@pytest.mark.process
def test_several_volumes_in_one_series_are_a_fault(tmp_path) -> None:
    def again(data, index) -> None:
        data.SOPInstanceUID = uid("again", index)
        data.PixelData = data.PixelData[::-1]

    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in/b", T2, number=5, change=again)
    account, by_number = take(tmp_path)
    assert by_number[5].status is SeriesStatus.FAULTY
    assert "12 slices share a position with another" in str(by_number[5].fault)
    assert account.status == 1


@pytest.mark.process
def test_copies_count_once_and_two_files_of_one_uid_are_a_fault(tmp_path) -> None:
    made = write_series(tmp_path / "in", T2, number=5)
    shutil.copy(made.files[0], tmp_path / "in/again.dcm")
    account, by_number = take(tmp_path)
    assert account.copies == 1
    assert by_number[5].status is SeriesStatus.SELECTED
    data = dcmread(made.files[0])
    data.ImagePositionPatient = [0, 0, 0]
    data.save_as(tmp_path / "in/again.dcm")
    _, by_number = take(tmp_path)
    assert "one instance UID" in str(by_number[5].fault)


@pytest.mark.process
@pytest.mark.parametrize("left", [200, 900, -300, -2])
def test_a_cut_file_is_told(tmp_path, left) -> None:
    made = write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in", FLAIR, number=6)
    made.files[3].write_bytes(made.files[3].read_bytes()[:left])
    account, by_number = take(tmp_path)
    assert account.status == 1
    told = [str(b.fault) for b in account.bad] + [
        str(v.fault) for v in by_number.values() if v.fault
    ]
    assert any("truncated" in t for t in told), told
    assert by_number[6].status is SeriesStatus.SELECTED
    assert by_number[5].status is SeriesStatus.FAULTY  # a slice is missing or cut


@pytest.mark.process
@pytest.mark.parametrize("byte", [0, 255])
def test_damaged_bytes_end_in_a_fault_never_in_a_traceback(tmp_path, byte) -> None:
    made = write_series(tmp_path / "in", T2, number=5)
    whole = made.files[2].read_bytes()
    rng = np.random.default_rng(byte)
    for number, at in enumerate(rng.integers(132, 1400, 60)):
        (tmp_path / f"in/f{number}").write_bytes(whole[:at] + bytes([byte]) * 6 + whole[at + 6 :])
    account, _ = take(tmp_path)
    assert account.status in (1, 2)


@pytest.mark.process
def test_a_transfer_syntax_that_loses_is_a_fault_and_a_lossless_one_is_taken(tmp_path) -> None:
    made = write_series(tmp_path / "in", T2, number=5)
    lossy = write_series(tmp_path / "in", FLAIR, number=6)
    for path in made.files:
        data = dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(path)
    for path in lossy.files:
        data = dcmread(path)
        data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        from pydicom.encaps import encapsulate

        data.PixelData = encapsulate([bytes(100)])
        data["PixelData"].VR = "OB"
        data.save_as(path)
    _, by_number = take(tmp_path)
    assert by_number[5].status is SeriesStatus.SELECTED
    assert "transfer syntax 1.2.840.10008.1.2.4.50" in str(by_number[6].fault)


@pytest.mark.process
def test_objects_without_images_are_no_fault(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5)
    write_series(tmp_path / "in", T2, number=9, change=every("Modality", "PR"))
    account, by_number = take(tmp_path)
    assert account.status == 0
    assert by_number[9].status is SeriesStatus.SKIPPED


@pytest.mark.process
def test_a_faulty_localiser_is_no_fault(tmp_path) -> None:
    style = dataclasses.replace(T2, description="localizer")
    write_series(tmp_path / "in", style, number=1, change=FAULTS["two orientations"][0])
    write_series(tmp_path / "in", T2, number=5)
    account, by_number = take(tmp_path)
    assert account.status == 0
    assert by_number[1].status is SeriesStatus.SKIPPED


@pytest.mark.process
def test_skip_settles_a_fault(tmp_path) -> None:
    write_series(tmp_path / "in", T2, number=5, drop=(4,))
    write_series(tmp_path / "in", FLAIR, number=6)
    account, _ = take(tmp_path)
    text = account.decisions.read_text()
    account.decisions.write_text(text.rstrip("\n") + "skip\n")
    assert take(tmp_path)[0].status == 0
    account.decisions.write_text(text.rstrip("\n") + "T2\n")
    with pytest.raises(DataError, match=r"decisions.tsv:2: T2 cannot be used: .* missing .* skip"):
        take(tmp_path)


@pytest.mark.process
def test_a_bad_patient_does_not_stop_another(tmp_path) -> None:
    write_series(tmp_path / "in/a", T2, number=5, drop=(4,))
    write_series(
        tmp_path / "in/b", GE["T2"], number=6, who=Who(id="B"), vendor="GE MEDICAL SYSTEMS"
    )
    account, _ = take(tmp_path)
    assert account.status == 1
    assert len(list((tmp_path / "out").glob("sub-*"))) == 1


def pack_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = "/etc/passwd"
        archive.addfile(info)


def pack_zip(path: Path, name: str, mode: int = 0) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(
    ("pack", "name", "kind", "message"),
    [
        (pack_tar, "../x", tarfile.REGTYPE, "leaves the folder"),
        (pack_tar, "a/../../x", tarfile.REGTYPE, "leaves the folder"),
        (pack_tar, "/tmp/x", tarfile.REGTYPE, "absolute path"),
        (pack_tar, "x", tarfile.SYMTYPE, "a link or a device"),
        (pack_tar, "x", tarfile.LNKTYPE, "a link or a device"),
        (pack_tar, "x", tarfile.CHRTYPE, "a link or a device"),
        (pack_tar, "x", tarfile.FIFOTYPE, "a link or a device"),
        (pack_zip, "../x", 0, "leaves the folder"),
        (pack_zip, "..\\x", 0, "leaves the folder"),
        (pack_zip, "/x", 0, "absolute path"),
        (pack_zip, "C:\\x", 0, "absolute path"),
        (pack_zip, "x", stat.S_IFLNK | 0o777, "a link or a device"),
    ],
)
def test_a_hostile_archive_is_refused(tmp_path, pack, name, kind, message) -> None:
    path = tmp_path / ("a.zip" if pack is pack_zip else "a.tar")
    pack(path, name, kind)
    (tmp_path / "to").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        unpack(path, tmp_path / "to", NO_PROGRESS)
    assert "member 1" in str(caught.value)
    assert list((tmp_path / "to").iterdir()) == []
    pack(path, "fine/x", 0 if pack is pack_zip else tarfile.REGTYPE)
    unpack(path, tmp_path / "to", NO_PROGRESS)
    assert len(list((tmp_path / "to").iterdir())) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [(ArchiveLimits(members=2, bytes=100), "more than 2 members"), (ArchiveLimits(members=3, bytes=29), "zip bomb"),
     (ArchiveLimits(members=3, bytes=30), None)],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_has_limits(tmp_path, limits, message, ending) -> None:
    path = tmp_path / f"a.{ending}"
    (tmp_path / "x").write_bytes(bytes(10))
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in "abc":
                archive.write(tmp_path / "x", name)
    else:
        with tarfile.open(path, "w") as archive:
            for name in "abc":
                archive.add(tmp_path / "x", name)
    (tmp_path / "to").mkdir()
    if message is None:
        unpack(path, tmp_path / "to", NO_PROGRESS, limits)
    else:
        with pytest.raises(DataError, match=message):
            unpack(path, tmp_path / "to", NO_PROGRESS, limits)


@pytest.mark.process
@pytest.mark.parametrize("size", [0, 60, 200, 1536, -1024, -12, None])
@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_cut_archive_is_one_error(tmp_path, ending, size) -> None:
    write_series(tmp_path / "in", T2)
    path = tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (tmp_path / "in").iterdir():
                archive.write(file, file.name)
    else:
        with tarfile.open(path, f"w:{ending[4:]}") as archive:
            archive.add(tmp_path / "in", "in")
    if ending == "tar":  # without what the block size adds
        whole = path.read_bytes().rstrip(b"\0")
        path.write_bytes(whole + bytes(-len(whole) % 512 + 1024))
    if size is None:
        assert (
            gliofed.intake(gliofed.IngestRequest(str(path), tmp_path / "out"), NoProgress()).status
            == 0
        )
        return
    if ending == "tar" and size < 0:
        size -= 1024  # half of the empty end would do
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"damaged, or locked|neither"):
        gliofed.intake(gliofed.IngestRequest(str(path), tmp_path / "out"), NoProgress())
    assert not (tmp_path / "out").exists()


@pytest.mark.process
def test_positions_rounded_to_a_hundredth_of_a_millimetre_are_no_gap(tmp_path) -> None:
    def rounded(data, index) -> None:
        data.ImagePositionPatient = [f"{float(v):.2f}" for v in data.ImagePositionPatient]

    made = write_series(tmp_path / "in", T2, shape=(20, 16, 155), spacing=(1, 1, 1), change=rounded)
    account, _ = take(tmp_path)
    assert account.status == 0
    (path,) = (tmp_path / "out").glob("sub-*/anat/*.nii.gz")
    image = nib.load(path)
    ends = np.array([[0, 0, n, 1] for n in (0, 154)]).T
    ours = {tuple(np.round((image.affine @ e)[:3])) for e in corners(image.shape)}
    assert all(tuple(np.round(e[:3])) in ours for e in (made.affine @ ends).T)


def corners(shape) -> list[np.ndarray]:
    return [
        np.array([x, y, z, 1])
        for x in (0, shape[0] - 1)
        for y in (0, shape[1] - 1)
        for z in (0, shape[2] - 1)
    ]


@pytest.mark.process
def test_a_folder_that_is_a_link_is_read_once(tmp_path) -> None:
    made = write_series(tmp_path / "elsewhere", T2)
    (tmp_path / "in").mkdir()
    for name in ("study", "again"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "in")
    account, _ = take(tmp_path)
    assert (account.status, account.copies) == (0, 0)
    assert account.outcomes[0].plan.studies[0].series_plans[0].series.files == len(made.files)
