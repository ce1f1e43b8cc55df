"""Sites that cannot run a training job, on real processes over mutual TLS: named, left out, and
the study goes on without them.
"""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest
from drill import drill
from federation_kits import HOUR, signed_anew

import gliofed
from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.try_out import start_party

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.campaign]

BROKEN = """
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("libtorch.so: cannot open shared object file")

if any("worker_process" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Broken())
"""
"""A module that Python imports at its start; an installation that breaks in the job's process."""


def test_a_broken_installation_and_a_certificate_that_ends_stop_nobody_else(tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    quorum = {"method": "label_aware", "quorum": 1}
    with drill(tmp_path / "far", 2000, federation=quorum) as d:
        d.segment = 3
        ends = time.monotonic() + 240
        signed_anew(d.place.kits, "east", -HOUR, timedelta(seconds=240))
        d.start(SERVER, "west", "east", "outer")
        d.parties["north"] = start_party(
            d.place, "north", ("env", f"PYTHONPATH={tmp_path}")
        )  # fmt: skip
        d.wait(lambda: "Successfully registered" in d.said("north"), "north is registered")
        d.start(LEAD)
        d.wait(lambda: d.status and "north" in d.status.left_out, "north is left out")
        d.wait(lambda: d.commits >= 2, "rounds without north")
        d.wait(lambda: time.monotonic() > ends, "the certificate of east has ended")
        d.wait(lambda: d.status and "east" in d.status.left_out, "east is left out")
        ended = "the certificate of east ended on"
        d.wait(lambda: ended in d.place.log("east").read_text(), "east's own screen has it")
        done = d.commits
        d.wait(lambda: d.commits > done + 1, "rounds without either")
        status, wrong = d.status, d.is_sound()
        said = {name: d.place.log(name).read_text() for name in ("north", "east", LEAD)}
        logged = {n: [e.fields for e in d.log(n) if e.event == "site-failed"]
                  for n in (SERVER, LEAD)}  # fmt: skip
        for name in (LEAD, *d.sites, SERVER):
            d.end(name)
    assert set(status.points[-1].answered) == {"west"}
    assert "does not run the training job" in status.points[0].refused["north"]
    assert "a training process of this site could not run" in said["north"]
    assert "libtorch.so: cannot open shared object file" in said["north"]
    assert ended in said["east"]
    assert "north: its training process" in said[LEAD]
    assert "warning: the certificate of east" in said[LEAD]
    for party in (SERVER, LEAD):
        assert {fields["site"] for fields in logged[party]} == {"north", "east"}
    assert not wrong
    assert not d.processes()


def test_a_revoked_kit_and_a_site_of_another_version_are_named_and_stop_nobody(tmp_path) -> None:
    source = Path(gliofed.__file__).parent
    older = shutil.copytree(source, tmp_path / "older/gliofed") / "version.py"
    older.write_text('"""Another version."""\n\n__version__ = "0.0.9"\n')
    quorum = {"method": "label_aware", "quorum": 1}
    with drill(tmp_path / "far", 2000, federation=quorum) as d:
        d.start(SERVER, "west", "east", "outer")
        d.parties["north"] = start_party(
            d.place, "north", ("env", f"PYTHONPATH={tmp_path / 'older'}")
        )
        for name in d.sites:
            d.wait(lambda name=name: "Successfully registered" in d.said(name), name)
        d.start(LEAD)
        d.wait(lambda: d.commits >= 1, "a round")
        gliofed.revoke(d.place.kits, "east")
        said = {name: d.place.log(name) for name in ("north", "east", LEAD)}
        d.wait(lambda: "its certificate was revoked" in said["east"].read_text(), "east is told")
        d.wait(lambda: "east" in d.status.missing, "the lead sees that east is gone")
        done = d.commits
        d.wait(lambda: d.commits > done + 1, "rounds without east")
        last, warnings, wrong = d.committed.history[-1], d.status.warnings, d.is_sound()
        refused = [e.fields for e in d.log(SERVER) if e.event == "connection-refused"]
        for name in (LEAD, *d.sites, SERVER):
            d.end(name)
    assert set(last.answered) == {"north", "west"}
    assert [w for w in warnings if w.startswith("north has gliofed 0.0.9, torch")]
    assert "warning: north has gliofed 0.0.9" in said[LEAD].read_text()
    assert "the server has gliofed" in said["north"].read_text()
    assert {"site": "east", "reason": "revoked"} in refused
    assert not wrong
    assert not d.processes()
