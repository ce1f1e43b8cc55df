"""Nothing that names a patient, a person or a place comes out but into the private folder."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
from dicom_maker import GE, SIEMENS, Who, save, uid, write_series
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag

import gliofed
from gliofed.ingest.redaction import redact

TEXTS = [
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientComments",
    "MedicalRecordLocator",
    "EthnicGroup",
    "Occupation",
    "AdditionalPatientHistory",
    "MilitaryRank",
    "CountryOfResidence",
    "RegionOfResidence",
    "PatientReligiousPreference",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "ReferringPhysicianName",
    "ReferringPhysicianAddress",
    "ReferringPhysicianTelephoneNumbers",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "OperatorsName",
    "PhysiciansOfRecord",
    "RequestingPhysician",
    "RequestingService",
    "RequestedProcedureDescription",
    "RequestedProcedureID",
    "ScheduledProcedureStepID",
    "PerformedProcedureStepID",
    "PerformedProcedureStepDescription",
    "StationName",
    "DeviceSerialNumber",
    "DeviceID",
    "ImageComments",
    "DerivationDescription",
    "AdmissionID",
    "AdmittingDiagnosesDescription",
    "CurrentPatientLocation",
    "PatientInsurancePlanCodeSequence",
    "SoftwareVersions",
    "DetectorID",
    "GantryID",
    "PlateID",
    "CassetteID",
    "AcquisitionComments",
    "RequestAttributesComments",
    "StudyComments",
    "VisitComments",
    "ResponsiblePerson",
    "ResponsibleOrganization",
    "PatientBirthTime",
    "SpecialNeeds",
    "PatientState",
    "Allergies",
    "InsurancePlanIdentification",
    "ProtocolNameExtra",
    "SequenceName",
    "ReceiveCoilName",
    "TransmitCoilName",
    "ContrastBolusAgent",
    "AcquisitionDeviceProcessingDescription",
]
DATES = [
    "PatientBirthDate",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "InstanceCreationDate",
    "PerformedProcedureStepStartDate",
    "DateOfLastCalibration",
]
TIMES = [
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "ContentTime",
    "PerformedProcedureStepStartTime",
]
UIDS = [
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "InstanceCreatorUID",
    "DeviceUID",
    "SynchronizationFrameOfReferenceUID",
]


def canaries(number: int) -> dict[str, str]:
    """Tag to what must never be seen. Short, and unlike anything that gliofed writes."""
    out = {name: f"Zq{place:03d}Kanari{number}" for place, name in enumerate(TEXTS)}
    out |= {name: f"19{31 + place:02d}0{1 + number}17" for place, name in enumerate(DATES)}
    out |= {name: f"1{place}4{number}53.917{place}4{number}" for place, name in enumerate(TIMES)}
    return out | {name: uid("canary", name, number) for name in UIDS}


def marked(words: dict[str, str]):
    def change(data: Dataset, index: int) -> None:
        for name, word in words.items():
            if hasattr(Dataset(), name) or _known(name):
                setattr(data, name, word)
        data.SOPInstanceUID = words["SeriesInstanceUID"][:50] + f".{index}"
        block = data.private_block(0x0019, "Zq900Kanari MAKER", create=True)
        block.add_new(0x10, "LO", "Zq901Kanari")
        block.add_new(0x11, "UN", b"Zq902Kanari")
        item = Dataset()
        item.CodeMeaning = "Zq903Kanari"
        data.ProcedureCodeSequence = [item]
        # People write names where they should not.
        data.SeriesDescription = (
            f"{data.SeriesDescription} {words['PatientName']} {words['PatientID']}"
        )
        data.ProtocolName = f"{words['OperatorsName']} {data.ProtocolName}"
        data.ManufacturerModelName = f"Skyra {words['StationName']}"

    return change


def _known(name: str) -> bool:
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(name) is not None and not name.endswith("Sequence")


def readable(root: Path) -> bytes:
    """Every byte below and every name, archives unpacked."""
    out = [str(p.relative_to(root)).encode() for p in root.rglob("*")]
    for path in root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            out += [data, gzip.decompress(data) if path.suffix == ".gz" else b""]
    return b"\n".join(out)


@pytest.fixture
def source(tmp_path) -> tuple[Path, list[str]]:
    """Four sequences, a series at fault, one in doubt, a broken file; all full of canaries."""
    words: list[str] = []
    styles = [*SIEMENS.values(), *GE.values()]
    for number, style in enumerate(styles):
        mine = canaries(number if number < 4 else 4)
        mine["SeriesInstanceUID"] = uid("canary series", number)
        mine["StudyInstanceUID"] = uid("canary study", number // 4)
        mine["PatientID"], mine["PatientName"] = (
            f"Zq{number // 4}idKanari",
            f"Zq{number // 4}namKanari^Wilma",
        )
        folder = tmp_path / "in" / mine["PatientID"] / f"{mine['PatientName']}-{mine['StudyDate']}"
        write_series(folder, style, number=number + 1, who=Who(), change=marked(mine),
                     drop=(3,) if number == 5 else ())  # fmt: skip
        words += [*mine.values(), "Wilma"]
    broken = next(folder.iterdir())
    broken.with_name("Zq0idKanari.dcm").write_bytes(broken.read_bytes()[:160])
    with disable_value_validation():
        data = dcmread(broken)
        data.SeriesInstanceUID = uid("bad") + ".x"
        data.SeriesNumber = 77
        save(data, broken.with_name("bad"))
    return tmp_path / "in", words


@pytest.mark.slow
@pytest.mark.process
def test_no_canary_is_seen_outside_the_private_folder(tmp_path, source) -> None:
    folder, words = source
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gliofed.cli.main", "intake", str(folder), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, check=False, env=None)
    assert done.returncode == 1, done.stderr.decode()
    text = done.stdout + done.stderr
    assert b"faulty" in text
    assert b"Traceback" not in text
    seen = readable(out) + text.replace(str(tmp_path).encode(), b"")
    spread = seen.lower()
    for word in {*words, "Kanari"}:
        assert word.lower().encode() not in spread, word
    assert len(list(out.glob("sub-*/anat/*.nii.gz"))) >= 4
    private = readable(tmp_path / "out-private").decode()
    assert "Zq0idKanari" in private  # the way back, and the only one


def test_the_canaries_are_in_the_source(tmp_path, source) -> None:
    folder, words = source
    seen = readable(folder)
    missing = [w for w in set(words) if w.encode() not in seen]
    known = {
        w
        for w in missing
        if any(canaries(n).get(name) == w for n in range(5) for name in TEXTS if not _known(name))
    }
    assert set(missing) == known
    assert keyword_for_tag(Tag(0x0010, 0x0010)) == "PatientName"


@pytest.mark.process
def test_the_image_header_is_bare(tmp_path) -> None:
    write_series(tmp_path / "in", SIEMENS["T2"])
    from gliofed.runtime.progress import NoProgress

    gliofed.intake(gliofed.IngestRequest(str(tmp_path / "in"), tmp_path / "out"), NoProgress())
    (path,) = (tmp_path / "out").glob("sub-*/anat/*.nii.gz")
    header = nib.load(path).header
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        assert bytes(header[field]).strip(b"\0") == b"", field
    assert len(header.extensions) == 0
    packed = path.read_bytes()
    assert packed[3] == 0  # the gzip header has no name, comment or extra field (RFC 1952)
    assert packed[4:8] == bytes(4)  # nor a time


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("t1 Rotkehl sag", ("Rotkehl",), "t1 … sag"),
        ("t1_ROTKEHL_sag", ("Rotkehl",), "t1_…_sag"),
        ("linear li LI_x", ("Li",), "linear … …_x"),
        ("t2 19610214 x", (), "t2 … x"),
        ("t2 1961 x", (), "t2 1961 x"),
        ("1.2.840.10008 t2", (), "… t2"),
        ("TE 2.98", (), "TE 2.98"),
        ("a\x1b[31mb\n", (), "a [31mb"),
        ("x" * 80, (), "x" * 60),
    ],
)
def test_texts_are_shown_without_names_and_long_numbers(text, words, told) -> None:
    assert redact(text, words) == told
