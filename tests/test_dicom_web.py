"""DICOMweb: against Orthanc where it is installed, and what is refused before anything is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from dicom_maker import write_study
from small_model import make_model

import gliofed
from gliofed.dicom.dicomweb import fetch, is_address
from gliofed.errors import DataError
from gliofed.runtime.progress import NO_PROGRESS, NoProgress

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STUDY = gliofed.DicomWebServer(studies=("1.2.3",))


def fenced() -> bool:
    """Whether Orthanc, its plugin and a network namespace can be had."""
    if not (Path("/usr/sbin/Orthanc").exists() and PLUGIN.exists() and shutil.which("unshare")):
        return False
    return (
        subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, check=False).returncode
        == 0
    )


orthanc = pytest.mark.skipif(not fenced(), reason="needs Orthanc with DICOMweb, and unshare -n")


def session(source: Path, work: Path, *model: Path) -> dict:
    work.mkdir()
    script = Path(__file__).with_name("orthanc_session.py")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(script), *map(str, (source, work, *model))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def images(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.glob("sub-*/**/*") if p.is_file()}


@pytest.mark.process
@orthanc
@pytest.mark.slow
def test_a_pacs_gives_what_its_files_give(tmp_path) -> None:
    write_study(tmp_path / "in")
    told = session(tmp_path / "in", tmp_path / "work", make_model(tmp_path / "model"))
    assert told["answers"] == ["predicted"]
    assert len(list((tmp_path / "work/answers").glob("sub-*/*_mask.dcm"))) == 4
    assert len(list((tmp_path / "work/answers").glob("sub-*/*_report.dcm"))) == 1
    assert set(told["stored"]) == {0}
    assert (told["web"], told["again"], told["sent"]) == (0, 0, 0), told
    assert "no MR series" in told["unknown"]
    assert "wildcard" in told["wild"]
    assert "it never reads a full PACS" in told["whole"]
    assert "HTTP status 401; check --secret" in told["locked"]
    account = gliofed.intake(
        gliofed.IngestRequest(str(tmp_path / "in"), tmp_path / "out", key=tmp_path / "work/key"),
        NoProgress(),
    )
    assert account.status == 0
    expected = images(tmp_path / "out")
    assert len(expected) == 8
    for name in ("web", "again", "sent"):
        assert images(tmp_path / "work" / name) == expected, name
    assert not list((tmp_path / "work").glob("*-private/work"))


@pytest.mark.process
@orthanc
@pytest.mark.data
@pytest.mark.slow
def test_a_pacs_gives_a_real_series(tmp_path, real_data) -> None:
    packed = real_data / "dicom-t1w/example-dicom-structural.tar.xz"
    if not packed.exists():
        pytest.skip(f"no {packed}")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "in", filter="data")
    slices = sorted((tmp_path / "in/dicoms").iterdir())
    for path in slices[48:]:  # that all 384 are taken in, test_intake shows
        path.unlink()
    told = session(tmp_path / "in/dicoms", tmp_path / "work")
    assert (told["web"], told["sent"]) == (1, 1), told  # a person must tell T1 from T1CE
    key = tmp_path / "work/key"
    for name, source in (("sent", tmp_path / "work/got"), ("out", tmp_path / "in/dicoms")):
        request = gliofed.IngestRequest(str(source), tmp_path / "work" / name, key=key)
        table = gliofed.intake(request, NoProgress()).decisions
        table.write_text(table.read_text().rstrip("\n") + "T1\n")
        assert gliofed.intake(request, NoProgress()).status == 0
    assert images(tmp_path / "work/sent") == images(tmp_path / "work/out")


@pytest.mark.parametrize(
    ("address", "pacs", "message"),
    [
        ("http://pacs.example/dicom-web", STUDY, "without TLS"),
        ("http://10.0.0.7:8042/dicom-web", STUDY, "without TLS"),
        ("https://user:word@pacs.example/", STUDY, "the address holds a password"),
        ("http://127.0.0.1:9/", STUDY, "cannot be reached"),
        ("http://localhost:9/", STUDY, "cannot be reached"),
        ("http://[::1]:9/", STUDY, "cannot be reached"),
        ("http://127.0.0.1:9/", gliofed.DicomWebServer(), "needs --study UID or --patient ID"),
        ("http://127.0.0.1:9/", gliofed.DicomWebServer(studies=("../x",)), "not a UID"),
        ("http://127.0.0.1:9/", gliofed.DicomWebServer(patient="A*"), "wildcard"),
        ("https://127.0.0.1:9/", gliofed.DicomWebServer(studies=("1.2",), ca=Path("/nowhere")), "no such file of certificates"),
        ("http://127.0.0.1:9/", gliofed.DicomWebServer(studies=("1.2",), secret_env="GLIOFED_NO_SUCH"), "neither `user:password`"),
    ],
)  # fmt: skip
def test_what_is_not_safe_is_refused(tmp_path, address, pacs, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fetch(address, pacs, tmp_path, NO_PROGRESS)
    assert "word@" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_plain_http_to_another_machine_needs_a_flag(tmp_path) -> None:
    pacs = gliofed.DicomWebServer(studies=("1.2",), plain=True)
    with pytest.raises(DataError, match="cannot be reached"):
        fetch("http://pacs.invalid/dicom-web", pacs, tmp_path, NO_PROGRESS)


@pytest.mark.parametrize(("mode", "message"), [(0o640, "chmod 600"), (0o600, "cannot be reached")])
def test_a_secret_that_others_may_read_is_refused(tmp_path, mode, message) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Bearer abc\n")
    secret.chmod(mode)
    pacs = gliofed.DicomWebServer(studies=("1.2",), secret_file=secret)
    with pytest.raises(DataError, match=message) as caught:
        fetch("http://127.0.0.1:9/", pacs, tmp_path, NO_PROGRESS)
    assert "abc" not in str(caught.value)


def test_an_address_is_told_from_a_folder() -> None:
    assert is_address("HTTPS://pacs.example")
    assert not is_address("https")
    assert not is_address("/data/http://x")
