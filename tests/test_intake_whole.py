"""A subject is whole or not there, whatever stops the intake and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dicom_maker import Who, tree, write_study

import gliofed
from gliofed.data.formats.bids import read_bids
from gliofed.ingest import bids_hospital
from gliofed.runtime.progress import NoProgress


def take(source: Path, out: Path, **over: object) -> gliofed.IngestResult:
    return gliofed.intake(gliofed.IngestRequest(str(source), out, **over), NoProgress())


@pytest.mark.slow
def test_a_subject_is_whole_or_not_there(tmp_path, monkeypatch) -> None:
    write_study(tmp_path / "in")
    real = bids_hospital.write_bytes
    written = []

    def failing(path: Path, data: bytes) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        real(path, data)

    monkeypatch.setattr(bids_hospital, "write_bytes", failing)
    with pytest.raises(OSError, match="No space left"):
        take(tmp_path / "in", tmp_path / "out")
    assert len(written) == 2
    assert not list((tmp_path / "out").glob("sub-*"))
    monkeypatch.undo()
    assert take(tmp_path / "in", tmp_path / "out").status == 0
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
@pytest.mark.process
def test_killed_at_any_moment_it_leaves_no_half_subject(tmp_path) -> None:
    for number in range(3):
        write_study(tmp_path / "in", who=Who(id=f"P{number}"), first=1 + 4 * number)
    key = tmp_path / "key"
    whole = tmp_path / "whole"
    take(tmp_path / "in", whole, key=key)
    out = tmp_path / "out"
    code = (
        "import sys, pathlib; from gliofed.ingest.intake import IngestRequest, intake\n"
        "class Deaf:\n def stage(self, *a): 0\n def update(self, *a): 0\n"
        "source, out, key = sys.argv[1:]\n"
        "intake(IngestRequest(source, pathlib.Path(out), key=pathlib.Path(key)), Deaf())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "in"), str(out), str(key)]
    kills = 0
    for wanted in range(1, 4):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        # The moment: as soon as there is something of the next subject, in part or whole.
        while process.poll() is None and len(list(out.glob("*sub-*"))) < wanted:
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        for subject in out.glob("sub-*"):
            assert tree(subject) == tree(whole / subject.name)
        if list(out.glob("sub-*")):
            read_bids(out, "here")
    assert kills
    take(tmp_path / "in", out, key=key)
    assert tree(out) == tree(whole)
