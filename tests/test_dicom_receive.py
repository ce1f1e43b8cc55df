"""A PACS sends: what is kept, under which name, and who may."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dicom_maker import SIEMENS, write_series
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    Verification,
)

import gliofed
from gliofed.errors import DataError
from gliofed.runtime.progress import NO_PROGRESS, NoProgress

OF_MR = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
CT = "1.2.840.10008.5.1.4.1.1.2"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Listening:
    """A receiver in a thread, until it is idle."""

    def __init__(self, folder: Path, **over) -> None:
        self.port = gliofed.ListenAddress(free_port(), idle=1.0, **over)
        self.count = -1
        self._thread = threading.Thread(target=self._run, args=(folder,))

    def _run(self, folder: Path) -> None:
        self.count = gliofed.receive(folder, self.port, NO_PROGRESS)

    def __enter__(self):
        self._thread.start()
        for _ in range(200):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port.number)) == 0:
                    return self
            time.sleep(0.01)
        raise AssertionError("does not listen")

    def __exit__(self, *error) -> None:
        self._thread.join()

    def associate(self, title: str = "PACS", called: str = "GLIOFED"):
        entity = AE(ae_title=title)
        for kind in (*OF_MR, CTImageStorage, Verification):
            entity.add_requested_context(kind)
        return entity.associate("127.0.0.1", self.port.number, ae_title=called)


@pytest.mark.slow
@pytest.mark.parametrize("enhanced", [None, lambda data: None], ids=["classic", "enhanced"])
def test_what_is_sent_is_kept_as_it_came_and_taken_in(tmp_path, enhanced) -> None:
    made = write_series(tmp_path / "in", SIEMENS["T2"], enhanced=enhanced)
    with Listening(tmp_path / "got") as there:
        link = there.associate()
        assert link.send_c_echo().Status == 0
        for path in [*made.files, made.files[0]]:
            assert link.send_c_store(dcmread(path)).Status == 0
        link.release()
    assert there.count == len(made.files)
    got = sorted((tmp_path / "got").iterdir())
    assert len(got) == len(made.files)
    assert all(p.suffix == ".dcm" and "." not in p.stem for p in got)
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in got)
    key = tmp_path / "key"
    for name in ("in", "got"):
        account = gliofed.intake(
            gliofed.IngestRequest(str(tmp_path / name), tmp_path / f"out-{name}", key=key),
            NoProgress(),
        )
        assert account.status == 0
    images = [next((tmp_path / f"out-{n}").glob("sub-*/anat/*.nii.gz")) for n in ("in", "got")]
    assert images[0].read_bytes() == images[1].read_bytes()


def test_other_than_mr_is_not_let_in(tmp_path) -> None:
    with Listening(tmp_path / "got") as there:
        link = there.associate()
        accepted = {c.abstract_syntax for c in link.accepted_contexts}
        assert accepted == {*OF_MR, Verification}
        link.release()
    assert there.count == 0


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "1.2/../../x"])
def test_a_uid_that_is_a_path_is_refused(tmp_path, name) -> None:
    made = write_series(tmp_path / "in", SIEMENS["T2"])
    data = dcmread(made.files[0])
    from pydicom.config import disable_value_validation

    with disable_value_validation():
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = name
        with Listening(tmp_path / "a/got") as there:
            link = there.associate()
            try:
                status = link.send_c_store(data)
                assert status.get("Status", 0xC000) == 0xC000
            except ValueError:  # the sender's own library may refuse
                pass
            link.release()
    assert there.count == 0
    assert list((tmp_path / "a/got").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "in"]


@pytest.mark.parametrize(
    ("title", "called", "let_in"),
    [("PACS", "GLIOFED", True), ("OTHER", "GLIOFED", False), ("PACS", "ELSE", False)],
)
def test_titles_are_asked_for(tmp_path, title, called, let_in) -> None:
    with Listening(tmp_path / "got", peers=("PACS",)) as there:
        link = there.associate(title, called)
        assert link.is_established == let_in
        if let_in:
            link.release()


@pytest.mark.parametrize(
    ("port", "message"),
    [(gliofed.ListenAddress(11112, title="x" * 17), "1 to 16"), (gliofed.ListenAddress(11112, title=""), "1 to 16"),
     (gliofed.ListenAddress(11112, peers=("a\\b",)), "1 to 16"), (gliofed.ListenAddress(11112, host="0.0.0.0"), "--peer"),
     (gliofed.ListenAddress(11112, host="example.org"), "--peer")],
)  # fmt: skip
def test_a_port_that_is_not_safe_is_refused(tmp_path, port, message) -> None:
    with pytest.raises(DataError, match=message):
        gliofed.receive(tmp_path / "got", port, NO_PROGRESS)
    assert not (tmp_path / "got").exists()


def test_a_taken_port_is_one_error(tmp_path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        with pytest.raises(DataError, match="cannot be listened on"):
            gliofed.receive(
                tmp_path / "got", gliofed.ListenAddress(one.getsockname()[1]), NO_PROGRESS
            )


def test_a_full_disk_is_told_to_the_sender_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    made = write_series(tmp_path / "in", SIEMENS["T2"])

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with Listening(tmp_path / "got") as there:
        link = there.associate()
        monkeypatch.setattr(os, "fsync", full)
        assert link.send_c_store(dcmread(made.files[0])).Status == 0xA700
        monkeypatch.undo()
        assert link.send_c_store(dcmread(made.files[0])).Status == 0
        link.release()
    assert len(list((tmp_path / "got").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.process
def test_the_command_listens_on_this_machine_alone_and_ends_on_ctrl_c(tmp_path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gliofed.cli.main", "receive", str(tmp_path / "got"), "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(3000):
            listening = [
                line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            ]
            own = [
                row[1] for row in listening if row[3] == "0A" and row[1].endswith(f":{port:04X}")
            ]
            if own:
                break
            time.sleep(0.01)
        assert own == [f"0100007F:{port:04X}"]
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert "0 instances in" in out, err
    assert "Traceback" not in err
    assert process.returncode == 0
