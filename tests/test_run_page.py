"""The page of a run between hospitals: complete in itself, small, cheap, and never a run's end."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from federation_kits import make_kits
from made_up_federation import EXTERNAL, LATE, make_rows, make_status, make_study
from made_up_run import TRAIN
from rich.console import Console
from test_report import HOSTILE, RESEARCH, SYNTHETIC, Reader, pictures

import gliofed
from gliofed.calibration.evaluation import ScalingRow
from gliofed.cli.screens.federation import status_table
from gliofed.deployment import run_page as page_module
from gliofed.deployment.kit import open_kit
from gliofed.deployment.run_page import PAGE, FederationPage, run_content
from gliofed.deployment.run_status import State, parse_status, read_status
from gliofed.deployment.supervisor import Supervisor, run_folder
from gliofed.errors import LinkError
from gliofed.federated.flare.connected_site import ConnectedSite
from gliofed.reporting.federation.content import FederationContent
from gliofed.reporting.federation.page import render_federation_page
from gliofed.reporting.federation.tables import SHOWN, fault_lines, round_lines, site_lines
from gliofed.reporting.html.formatting import round_ranges
from gliofed.types import RoundPoint

STUDY = make_study()


def content(
    rounds: int = 14, state: str = "training", withdrawn: tuple[str, ...] = (), **more: object
) -> FederationContent:
    return run_content(make_status(STUDY, rounds, state, **more), withdrawn, STUDY)


@pytest.fixture(scope="module")
def done() -> FederationContent:
    """Complete; Leiden is not in the test, Utrecht has withdrawn, Amsterdam hides small counts."""
    rows, failures = make_rows(60, 11, ("leiden",)), {"leiden": LATE}
    return content(30, "completed", ("utrecht",), rows=rows, failures=failures)


@pytest.fixture(scope="module")
def whole(done: FederationContent) -> str:
    return render_federation_page(done)


def rows_of(text: str, section: str) -> list[list[str]]:
    """The cells of every line of the last table in a section, empty ones too."""
    inside = text.split(f'<section id="{section}"')[1].split("</section>", maxsplit=1)[0]
    body = inside.split("<tbody>")[-1].split("</tbody>")[0]
    lines = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [
        [" ".join(Reader(c).text) for c in re.findall(r"<t[hd].*?</t[hd]>", x, re.S)] for x in lines
    ]


def test_it_asks_nothing_of_any_network_and_runs_no_script(whole: str) -> None:
    reader = Reader(whole)
    for _, attrs in reader.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {t for t, _ in reader.tags}
    assert "@import" not in whole
    policy = next(m["content"] for m in reader.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")
    assert "script-src 'none'" in policy
    levels = [int(t[1]) for t, _ in reader.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert {a["href"][1:] for a in reader.all("a")} <= set(ids)
    assert len(pictures(whole)) == 1 + 5 + 3  # Dice, losses, what rounds took


def test_banners_state_and_provenance(done: FederationContent, whole: str) -> None:
    seen = Reader(whole).seen
    assert RESEARCH in seen
    assert SYNTHETIC not in seen
    assert "completed" in seen
    assert all(value in seen for _, value in done.facts)
    assert STUDY.digest in seen
    phantom = render_federation_page(
        dataclasses.replace(content(0), synthetic=True, why="for leiden")
    )
    assert SYNTHETIC in Reader(phantom).seen
    assert "for leiden" in Reader(phantom).seen
    assert pictures(phantom) == []


def test_sites_have_what_they_did_in_the_rounds(whole: str) -> None:
    assert rows_of(whole, "sites") == [
        ["gent", "trains", "connected", "30", "0", "8.4", "30"],  # median of 8.26 to 8.55
        ["leiden", "trains", "connected", "26", "4", "11.5", "30"],
        ["utrecht", "trains", "withdrawn", "30", "0", "10.0", "30"],
        ["amsterdam", "only tests", "connected", "", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("sites", "missing", "expected"),
    [
        ((), (), ["not requested"] * 4),
        ((), ("gent",), ["missing", "connected", "connected", "connected"]),
        (("gent", "leiden"), (), ["connected", "connected", "not requested", "not requested"]),
        (("gent", "leiden"), ("leiden",), ["connected", "missing", "connected", "connected"]),
    ],
)
def test_a_site_is_said_to_be_connected_only_where_that_is_known(sites, missing, expected) -> None:
    lines = site_lines(content(0, sites=sites, missing=missing))
    assert [x.standing for x in lines] == expected


def test_rounds_are_newest_first_and_say_who_was_missing(whole: str) -> None:
    lines = rows_of(whole, "rounds")
    assert [x[0] for x in lines] == [str(n) for n in range(30, 0, -1)]
    without = {x[0]: x[3] for x in lines if x[3]}
    assert without == dict.fromkeys(("12", "7", "6", "5"), "leiden")
    point = make_status(STUDY, 30).points[29]
    assert lines[0][1:3] == ["12.5", "4.1"]
    assert lines[0][5] == f"{point.losses['mask']:.3f}"


def test_equal_faults_are_one_line_with_their_rounds(whole: str) -> None:
    assert rows_of(whole, "faults") == [
        ["12", "leiden", "norm of the change 61.2 above 2 x 24.1"],
        ["5 to 7", "leiden", "no answer: no answer within 3600 s"],
    ]
    assert "No update was refused so far." in Reader(render_federation_page(content(4))).seen


def test_rounds_between_two_commits_are_one_line_with_their_means() -> None:
    """Rounds 1 to 20 and 21 to 24: Leiden is missing from two of them, and then from all."""
    first, last = make_status(STUDY, 2).points
    every, late = dict.fromkeys(TRAIN, 20), {"gent": 4, "utrecht": 4}
    points = (
        dataclasses.replace(
            first, round=19, rounds=20, seconds=50.0, bytes_up=80_000_000,
            merged=every | {"leiden": 18}, answered=dict.fromkeys(TRAIN, 1.0),
            refused={"leiden": f"{LATE} (2 of 20 rounds)"},
        ),
        dataclasses.replace(
            last, round=23, rounds=4, seconds=8.0, bytes_up=4_000_000, merged=late, losses={},
            answered=dict.fromkeys(late, 2.0), refused={"leiden": f"{LATE} (4 of 4 rounds)"},
        ),
    )  # fmt: skip
    page = content(points=points)
    text = render_federation_page(page)
    assert [x.round for x in round_lines(points)] == ["24", "20"]
    assert [(x.seconds, x.sent) for x in round_lines(points)] == [("2.0", "1.0"), ("2.5", "4.0")]
    assert [(x.answered, x.refused, x.last) for x in site_lines(page)] == [
        ("24", "0", "24"), ("18", "6", "20"), ("24", "0", "24"), ("", "", ""),
    ]  # fmt: skip
    assert "24 of 30 rounds" in Reader(text).seen
    assert [x[0] for x in rows_of(text, "faults")] == ["21 to 24", "1 to 20"]


@pytest.mark.parametrize(
    ("rounds", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([1, 2, 3, 7], "1 to 3, 7"),
        ([1, 3, 5, 7, 9, 11], "1, 3, 5, 7, 9, 11"),
        ([1, 3, 5, 7, 9, 11, 13], "7 rounds between 1 and 13"),
    ],
)
def test_stretches(rounds, text) -> None:
    assert round_ranges(rounds) == text


def test_the_test_shows_external_figures_first_and_says_what_is_hidden(done, whole: str) -> None:
    lines = rows_of(whole.replace("Sites that are not in the test", "</section>"), "test")
    assert [x[0] for x in lines] == [r.role for r in done.rows]
    assert [x[5] == "hidden" for x in lines] == [r.value is None for r in done.rows]
    assert {x[5] == "hidden" for x in lines} == {True, False}
    seen = Reader(whole).seen
    row = next(
        r for r in done.rows if (r.site, r.task, r.metric) == ("all", "idh", "auc_within_site")
    )
    assert f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f}), n = {row.n}" in seen
    hidden = sum(r.value is None for r in done.rows)
    assert f"{hidden} figures suppressed by sites" in seen
    assert rows_of(whole, "test") == [["leiden", "no answer: no answer within 3600 s"]]
    assert whole.index("External sites, which") < whole.index("All figures")


def test_without_any_external_answer_it_says_so() -> None:
    rows = make_rows(40, 1, (EXTERNAL,))
    assert {r.role for r in rows} == {"holdout"}
    assert "There are no figures of an external site" in render_federation_page(
        content(30, "completed", rows=rows)
    )


def test_hostile_names_stay_text() -> None:
    point = RoundPoint(0, 1, {HOSTILE: 1.0}, None, None, 1.0, 1, {HOSTILE: HOSTILE}, {}, {})
    bad = dataclasses.replace(
        content(0), study=HOSTILE, why=HOSTILE, points=(point,), failures={HOSTILE: HOSTILE},
        stations=(dataclasses.replace(content(0).stations[0], site=HOSTILE),),
        facts=((HOSTILE, HOSTILE),),
    )  # fmt: skip
    reader = Reader(render_federation_page(bad))
    assert not reader.all("script")
    assert not any("evil" in image["src"] for image in reader.all("img"))
    assert reader.seen.count(HOSTILE) > 6


def test_a_long_run_stays_a_small_page() -> None:
    """Every round has another refusal, so that nothing can be told together."""
    points = tuple(
        dataclasses.replace(p, round=n, refused={"leiden": f"site leiden: reason {n}"})
        for n, p in enumerate(make_status(STUDY, 30).points * 20)
    )
    long = dataclasses.replace(content(0), points=points, rounds=900)
    text = render_federation_page(long)
    assert len(rows_of(text, "rounds")) == len(rows_of(text, "faults")) == SHOWN < 600
    assert rows_of(text, "rounds")[0][0] == "600"
    assert f"{600 - SHOWN} earlier rounds are not listed" in text
    assert f"{600 - SHOWN} older reasons are not listed" in text
    short = render_federation_page(dataclasses.replace(long, points=points[:SHOWN]))
    assert "not listed" not in short
    assert len(round_lines(points[:SHOWN])) == len(fault_lines(points[:SHOWN])) == SHOWN
    assert len(text) < 3 * len(short)


@pytest.fixture
def drawn(monkeypatch) -> list[FederationContent]:
    """What was drawn; and a clock of which the test is master, in place of time."""
    out: list[FederationContent] = []
    monkeypatch.setattr(page_module, "write_federation_page", lambda c, path: out.append(c))
    return out


def test_a_page_is_drawn_when_the_state_changes_and_else_not_more_often_than_it_may(
    drawn, monkeypatch, tmp_path
) -> None:
    now = [100.0]
    monkeypatch.setattr(page_module.time, "monotonic", lambda: now[0])
    page = FederationPage(tmp_path, STUDY)

    def show(rounds: int, state: State = "training", **more: bool) -> int:
        page.show(make_status(STUDY, rounds, state), (), **more)
        return len(drawn)

    assert show(1) == 1
    now[0] += 9.9
    assert show(2) == 1
    now[0] += 0.2
    assert show(2) == 2
    assert show(2, "testing") == 3  # at once
    assert show(2, "testing", now=True) == 3  # nothing new
    assert show(3, "testing") == 3
    assert show(3, "testing", now=True) == 4
    now[0] += 1000
    assert show(3, "testing") == 4  # nothing new
    assert page.show(make_status(STUDY, 3, "testing"), ("gent",)) == ""
    assert len(drawn) == 5


def test_a_page_that_takes_long_is_drawn_less_often(monkeypatch, tmp_path) -> None:
    now, drawn = [0.0], []

    def slow(_: FederationContent, path: Path) -> None:
        drawn.append(path)
        now[0] += 2.0

    monkeypatch.setattr(page_module, "write_federation_page", slow)
    monkeypatch.setattr(page_module.time, "monotonic", lambda: now[0])
    page = FederationPage(tmp_path, STUDY)
    page.show(make_status(STUDY, 1), ())
    now[0] += 39.9
    page.show(make_status(STUDY, 2), ())
    assert len(drawn) == 1
    now[0] += 0.2
    page.show(make_status(STUDY, 2), ())
    assert len(drawn) == 2


class FakeServer:
    """A server whose sites and jobs are as the test says; each job is over when first asked."""

    def __init__(self, word: Mapping[str, Any], sites: Sequence[str]) -> None:
        self.word, self.here, self.told = word, dict.fromkeys(sites, ConnectedSite(1.0)), 0

    def sites(self):
        return self.here

    def submit(self, job: Path) -> str:
        if not job.is_dir():
            raise LinkError("no such job")
        self.told = 0
        return "1"

    def state(self, job: str) -> str:
        return "FINISHED:COMPLETED" if self.told else "RUNNING"

    def command(self, job: str, topic: str) -> Mapping[str, Any] | None:
        self.told += 1
        return self.word

    def withdrawn(self, run: str) -> tuple[str, ...]:
        return ()

    def abort(self, job: str) -> None:
        raise AssertionError("no job was to be aborted")


def supervisor(tmp_path: Path, word: Mapping[str, Any]) -> Supervisor:
    make_kits(tmp_path / "kits", *TRAIN, EXTERNAL)
    kit = open_kit(tmp_path / "kits/lead", "lead")
    server = FakeServer(word, (*TRAIN, EXTERNAL))
    return Supervisor(kit, STUDY, server, lambda _: None, gliofed.RetryLimits(poll=0.01))


def test_the_lead_gets_the_page_of_a_run_seen_through(tmp_path) -> None:
    word = make_status(STUDY, 30, "completed", rows=make_rows()).plain
    job = supervisor(tmp_path, word)
    end = job.run()
    folder = run_folder(job.kit, STUDY)
    assert end.state == "completed"
    assert end.page == ""
    assert read_status(folder) == end
    text = (folder / PAGE).read_text()
    assert "30 of 30 rounds" in Reader(text).seen
    assert len(rows_of(text, "test")) == len(end.rows)
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OverflowError("axis")])
def test_a_page_that_cannot_be_drawn_ends_no_run_and_stands_in_its_status(
    tmp_path, monkeypatch, error
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(page_module, "write_federation_page", fail)
    job = supervisor(tmp_path, make_status(STUDY, 30, "completed").plain)
    end = job.run()
    assert end.state == "completed"
    assert str(error) in end.page
    assert read_status(run_folder(job.kit, STUDY)).page == end.page


@pytest.mark.parametrize("fault", ["", "OSError: the disk is full"])
def test_the_lead_is_told_in_the_terminal_too(fault, capsys) -> None:
    Console(width=200).print(status_table(make_status(STUDY, 2, page=fault)))
    said = capsys.readouterr().out
    assert ("could not be drawn" in said) == bool(fault)
    assert fault in said


def test_an_error_of_our_own_making_is_not_hidden(monkeypatch, tmp_path) -> None:
    def fail(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(page_module, "write_federation_page", fail)
    with pytest.raises(TypeError, match="a bug"):
        FederationPage(tmp_path, STUDY).show(make_status(STUDY, 1), ())


def test_the_calibration_and_who_is_not_in_it_are_on_the_page_and_in_the_table(
    tmp_path, capsys
) -> None:
    fit = ScalingRow(
        "federated", 1, "", "idh", "platt", (31, 12), 0.6, (0.0, 0.25), (0.1, 0.2), 0.9, ""
    )
    gone = {"leiden": "site leiden: no answer: gone"}
    status = make_status(STUDY, 30, "completed", fits=(fit,), uncalibrated=gone)
    assert parse_status(status.plain) == status
    page = render_federation_page(run_content(status, (), STUDY))
    assert "wildtype 31, mutant 12" in page
    assert "Sites that are not in the calibration" in page
    Console(width=200).print(status_table(status))
    shown = capsys.readouterr().out
    assert "wildtype 31, mutant 12" in shown
    assert "0.60" in shown
    assert "site leiden: no answer: gone" in shown
