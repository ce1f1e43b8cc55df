"""Sites that cannot run a training job, on real processes over mutual TLS: named, left out, and
the study goes on without them.
"""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from drill import drill
from federation_kits import HOUR, signed_anew

from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.try_out import start_party

pytestmark = [pytest.mark.slow, pytest.mark.process]

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


@pytest.mark.campaign
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
    assert "the certificate of east ended on" in said["east"]
    assert "north: its training process" in said[LEAD]
    assert "warning: the certificate of east" in said[LEAD]
    for party in (SERVER, LEAD):
        assert {fields["site"] for fields in logged[party]} == {"north", "east"}
    assert not wrong
    assert not d.processes()
