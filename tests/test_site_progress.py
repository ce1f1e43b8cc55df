"""What a hospital sees of its own part in a run, while it runs and afterwards."""

from __future__ import annotations

import dataclasses
import os

import pytest
from federation_kits import make_kits
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.kit import open_kit
from gliofed.deployment.site_model import write_scores
from gliofed.deployment.site_progress import (
    PROGRESS,
    REPORT_SECONDS,
    ProgressRecorder,
    ProgressReporter,
    read_progress,
)
from gliofed.errors import CheckpointError
from gliofed.evaluation.results import ScoreRow
from gliofed.federated.governance.failure import FailureReport
from gliofed.federated.linkage.site_decisions import SiteDecisions, write_decisions

RUN = "ab" * 12
STATS = {"stats": {"mask": [6.0, 4.0], "idh": [1.0, 2.0], "dice": [2.0, 4.0], "skipped": [0, 0]}}
SCORE = ScoreRow("federated", "holdout", "north", "mask", "dice", 6, 0.5, 0.4, 0.6, 1)


def train(number: int) -> dict[str, object]:
    return {"kind": "train", "round": number, "rounds": 20}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kit(tmp_path):
    make_kits(tmp_path / "kits", "north")
    return open_kit(tmp_path / "kits/north", "site")


@pytest.fixture
def recorder(kit, clock):
    return ProgressRecorder(kit.work / RUN, "glioma", clock)


def test_rounds_seconds_metrics_and_failures_are_recorded(recorder, clock) -> None:
    recorder.responded({"kind": "count"}, {}, 0.2)
    clock.now = 2.0
    recorder.responded(train(0), STATS, 1.5)
    recorder.failed(FailureReport("train", "DataError", "0123456789abcdef"))
    found = read_progress(recorder.folder)
    assert (found.study, found.state, found.round, found.rounds) == ("glioma", "training", 1, 20)
    assert (found.responses, found.seconds, found.failures) == (2, 1.5, 1)
    assert (found.losses, found.dice) == ({"mask": 1.5, "idh": 0.5}, 0.5)
    assert (
        found.failure == "DataError in stage train; read gliofed/work/reports/0123456789abcdef.txt"
    )
    assert found.line == (
        "study glioma: training, 1 of 20 rounds; 2 responses, the last in 1.5 s; loss 2.000; "
        "Dice 0.500; 1 failed"
    )
    assert (recorder.folder / PROGRESS).stat().st_mode & 0o777 == 0o600
    clock.now = 4.0
    recorder.responded(train(1), {"stats": {}}, 1.0)
    assert read_progress(recorder.folder).losses == found.losses, "statistics leave once a pass"


def test_short_rounds_are_written_once_a_second_and_a_restart_goes_on_counting(
    recorder, clock
) -> None:
    for number in range(10):
        clock.now = 1.0 + number / 8
        recorder.responded(train(number), {}, 0.1)
    assert read_progress(recorder.folder).round == 9, "the one a second after the first"
    again = ProgressRecorder(recorder.folder, "glioma", clock)
    again.responded(train(10), {}, 0.1)
    assert read_progress(recorder.folder).responses == 10


def test_a_full_disk_ends_nothing(kit) -> None:
    folder = kit.work / RUN
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    ProgressRecorder(folder, "glioma").responded(train(0), {}, 1.0)


def test_join_reports_changes_at_once_and_rounds_now_and_then(kit, recorder, clock) -> None:
    ProgressRecorder(kit.work / ("cd" * 12), "old").responded(train(3), {}, 1.0)
    lines: list[str] = []
    reporter = ProgressReporter(kit, lines.append, clock)

    def after(seconds: float) -> list[str]:
        clock.now += seconds
        os.utime(recorder.folder / PROGRESS, (clock.now + 2e9, clock.now + 2e9))
        reporter.tick()
        new, lines[:] = [*lines], []
        return new

    recorder.responded({"kind": "count"}, {}, 0.2)
    assert after(1) == ["study glioma: counting cases; 1 responses, the last in 0.2 s"]
    write_decisions(recorder.folder, SiteDecisions(("P1", "P2"), {"P1": 1}, ("P1",)))
    recorder.responded(train(0), {}, 0.2)
    _, shared = after(1)
    assert shared == (
        "of this site's 2 patients, at other sites, too: 1; left out here: 1; the list: "
        f"{recorder.folder / 'shared_patients.json'}"
    )
    for number in range(1, 6):
        clock.now += 1
        recorder.responded(train(number), {}, 0.2)
    assert after(REPORT_SECONDS - 6) == []
    assert "6 of 20 rounds" in "".join(after(1))
    recorder.failed(FailureReport("policy", "PolicyError", "01" * 8))
    assert after(1)[1].startswith("failed here: PolicyError in stage policy; read")
    recorder.failed(FailureReport("policy", "PolicyError", "02" * 8))
    assert after(1) == [], "the same failure again"
    write_scores(recorder.folder, [SCORE, dataclasses.replace(SCORE, value=None)])
    recorder.responded({"kind": "model"}, {}, 0.2)
    first, failed, score, fetch = after(1)
    assert "has received the model" in first
    assert failed.startswith("failed here")
    assert score == "own test cases: holdout mask dice 0.500 (0.400 to 0.600), n 6"
    assert fetch == f"take the model out with: gliofed model fetch {kit.root} --out model"
    assert after(2 * REPORT_SECONDS) == [], "nothing happened"


def test_status_of_a_hospital_shows_its_own_part(kit, recorder) -> None:
    with pytest.raises(CheckpointError, match="run gliofed join"):
        gliofed.site_progress(kit.root)
    recorder.responded(train(4), STATS, 1.5)
    write_scores(recorder.folder, [SCORE])
    done = CliRunner().invoke(app, ["status", str(kit.root)])
    assert done.exit_code == 0, done.output
    for text in ("5 of 20 rounds", "training losses: mask 1.500, idh 0.500", "0.500 (0.400"):
        assert text in done.output
    assert CliRunner().invoke(app, ["status", str(kit.root), "--watch"]).exit_code == 2
