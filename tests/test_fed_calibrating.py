"""Calibration between hospitals: what is asked, what leaves, and that it is the pooled cases'."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import THIN
from replies_here import replies_here
from test_calibrate import answers

from gliofed.calibration.calibrator import fit_calibration
from gliofed.calibration.site_statistics import CalibrationCases, local_exchange
from gliofed.calibration.statistics import StatisticsRequest
from gliofed.errors import CheckpointError, UpdateError
from gliofed.evaluation.results import CaseResult
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.gate import check_statistics
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.messages import (
    CalibrationRequest,
    StatisticsResponse,
    load_request,
    save_request,
    save_statistics,
)
from gliofed.federated.server.calibration import CALIBRATION, last_calibration, run_calibration
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.wire import read_note, save
from gliofed.federation_config import FederationConfig
from gliofed.markers import BY_ID
from gliofed.models.network import network_from_spec
from gliofed.runtime.device import Device
from gliofed.study import CalibrationConfig

CPU = Device(torch.device("cpu"), bf16=False)
LIMITS = FederationConfig(max_cases=1000)
STATE = CommittedRound("run", 2, network_from_spec(THIN, 0).state_dict(), ())
CASES = {"a": answers(120, "a", 1), "b": answers(60, "b", 2), "c": answers(25, "c", 3)}
NONCE = "0" * 32


def external(cases):
    return tuple(dataclasses.replace(r, role="external") for r in cases)


class Sites:
    """Sites in this process. twists: site to what becomes of its reply to a task."""

    def __init__(self, study, folder: Path, cases=CASES, smallest=1, **twists) -> None:
        self.folder, self.cases, self.smallest, self.twists = folder, cases, smallest, twists
        self.study = dataclasses.replace(
            study, data=dataclasses.replace(study.data, train=tuple(cases))
        )
        self.tests, self.tasks, self.asked = dict.fromkeys(cases, 0), [], []
        self.sites = {n: self.site(n) for n in cases}

    def site(self, name: str) -> Client:
        def test(_weights) -> tuple[CaseResult, ...]:
            self.tests[name] += 1
            return (*self.cases[name], *external(answers(7, f"x{name}", 9)))

        folder, policy = self.folder / name, SitePolicy(smallest_count=self.smallest)
        return Client(SiteData(name, test=test), ClientSetup(self.study, 1, folder, CPU), policy)

    def reach(self, names):
        self.asked = names
        return self

    def send(self, request: Path):
        self.tasks.append(load_request(request))
        asked = {name: self.sites[name] for name in self.asked}
        for name, reply in replies_here(request, asked, self.folder):
            yield self.twists.get(name, lambda _, r: r)(self.tasks[-1], reply)

    def run(self, folder=None):
        own = folder or self.folder / "run"
        return run_calibration(self.reach, STATE, self.study, "run", own)


def pooled(*names, smallest=1):
    return fit_calibration(
        local_exchange({n: CalibrationCases(CASES[n], smallest) for n in names}),
        CalibrationConfig(),
    )


def test_it_is_the_calibration_of_the_cases_together_and_the_model_is_sent_once(
    tiny_study, tmp_path
) -> None:
    sites = Sites(tiny_study, tmp_path)
    found = sites.run()
    assert (found.sites, found.failures, found.rounds) == (("a", "b", "c"), {}, 2)
    assert found.calibration == pooled("a", "b", "c")  # to the last bit, over the wire or not
    whole = fit_calibration(
        local_exchange({"all": CalibrationCases(sum(CASES.values(), ()))}), CalibrationConfig()
    )
    for marker, own in found.calibration.scalings.items():
        assert own.kind == "platt"
        assert own.slope == pytest.approx(whole.scalings[marker].slope, abs=1e-9)
    assert found.calibration.sets == whole.sets
    assert sites.tests == {"a": 1, "b": 1, "c": 1}
    assert [t.statistics.step for t in sites.tasks[:2]] == ["count", "scale"]
    assert [t.weights is not None for t in sites.tasks] == [True] + [False] * (len(sites.tasks) - 1)
    assert len(sites.tasks) < 15  # all markers in one question
    assert last_calibration(tmp_path / "run", "run", 2) == found


def test_a_finished_one_is_not_asked_for_again_and_a_damaged_one_is_refused(
    tiny_study, tmp_path
) -> None:
    sites = Sites(tiny_study, tmp_path)
    assert last_calibration(tmp_path / "run", "run", 2) is None
    first = sites.run()
    asked = len(sites.tasks)
    assert sites.run() == first
    assert len(sites.tasks) == asked
    assert [p.name for p in (tmp_path / "run").iterdir()] == [CALIBRATION]
    with pytest.raises(CheckpointError, match=r"calibration\.json: is the calibration of another"):
        last_calibration(tmp_path / "run", "other", 2)
    path = tmp_path / "run" / CALIBRATION
    text = path.read_text()
    for bad in (text[:-9], "[]", "{}", text.replace('"slope"', '"slop"')):
        path.write_text(bad)
        with pytest.raises(CheckpointError, match="delete this file to calibrate the model again"):
            last_calibration(tmp_path / "run", "run", 2)


def test_a_site_lost_on_the_way_is_named_and_the_others_begin_anew_without_it(
    tiny_study, tmp_path
) -> None:
    scales = []

    def late(task, reply):
        if task.statistics.step == "scale":
            scales.append(1)
        return SiteReply("b", None, "gone") if len(scales) == 3 else reply

    sites = Sites(tiny_study, tmp_path, b=late)
    found = sites.run()
    assert found.sites == ("a", "c")
    assert found.failures == {"b": "site b: no response: gone"}
    assert found.calibration == pooled("a", "c")
    assert [t.statistics.step for t in sites.tasks].count("count") == 2
    assert sites.tests == {"a": 1, "b": 1, "c": 1}  # what they had answered they still have


def test_a_site_that_was_started_anew_cannot_go_on(tiny_study, tmp_path) -> None:
    def restart(task, reply):
        if task.statistics.step == "count":
            sites.sites["a"] = sites.site("a")
        return reply

    sites = Sites(tiny_study, tmp_path, a=restart)
    found = sites.run()
    assert found.sites == ("b", "c")
    assert "restarted during the calibration" in found.failures["a"]


def test_nobody_answers_or_nobody_kept_a_case_back(tiny_study, tmp_path) -> None:
    gone = dict.fromkeys(CASES, lambda _, r: SiteReply(r.site, None, "gone"))
    found = Sites(tiny_study, tmp_path, **gone).run()
    assert (found.sites, set(found.failures)) == ((), {"a", "b", "c"})
    assert found.calibration == pooled()
    assert {s.kind for s in found.calibration.scalings.values()} == {"identity"}
    none = Sites(tiny_study, tmp_path, cases={"a": (), "b": ()}).run(tmp_path / "none")
    assert none.sites == ("a", "b")
    assert {s.kind for s in none.calibration.scalings.values()} == {"identity"}


def test_cases_of_few_stay_hidden_and_what_leaves_names_nobody(tiny_study, tmp_path) -> None:
    least = 9
    sites = Sites(tiny_study, tmp_path, smallest=least)
    sent = []

    def keep(_, reply):
        sent.append(read_note(reply.response))
        return reply

    sites.twists = dict.fromkeys(CASES, keep)
    found = sites.run()
    assert found.calibration == pooled("a", "b", "c", smallest=least)
    assert any("too few cases of a class" in n for n in found.calibration.notes.values())
    for note in sent:
        assert set(note) == {"run", "nonce", "site", "statistics"}
        assert not any(f'"{r.case}"' in json.dumps(note) for own in CASES.values() for r in own)
        for counts in note["statistics"]["true_classes"].values():
            sums = np.array(counts).sum(1)
            assert not ((sums > 0) & (sums < least)).any()
        cells = note["statistics"]["cells"]
        assert cells is None or not any(0 < n < least for n in np.ravel(cells))


# ---- the message


def told(folder: Path, question: StatisticsRequest, **changes) -> tuple[CalibrationRequest, Path]:
    task = CalibrationRequest("run", NONCE, 2, question, None)
    save_request(folder / "task", task)
    own = CalibrationCases(CASES["c"]).respond(load_request(folder / "task").statistics)
    answer = dataclasses.replace(StatisticsResponse("run", NONCE, "c", own), **changes)
    save_statistics(folder / "answer", answer)
    return task, folder / "answer"


def every_question():
    asked = []

    def ask(question):
        asked.append(question)
        return {"c": CalibrationCases(CASES["c"]).respond(question)}

    fit_calibration(ask, CalibrationConfig())
    return {q.step: q for q in reversed(asked)}  # the first of each step: of all markers


QUESTIONS = every_question()


@pytest.mark.parametrize("step", ["count", "scale", "limit"])
def test_questions_and_answers_come_back_bit_for_bit(step, tmp_path) -> None:
    task, answer = told(tmp_path, QUESTIONS[step])
    assert load_request(tmp_path / "task") == task
    found = check_statistics("c", task, answer, LIMITS)
    own = CalibrationCases(CASES["c"]).respond(QUESTIONS[step])
    assert found.suppressed == own.suppressed
    assert found.not_finite == own.not_finite
    for name in ("true_classes", "confidences"):
        assert getattr(found, name).keys() == getattr(own, name).keys()
        for marker, counts in getattr(own, name).items():
            assert np.array_equal(getattr(found, name)[marker], counts)
    for marker, sums in own.sums.items():
        assert found.sums[marker].loss == sums.loss
        assert np.array_equal(found.sums[marker].hessian, sums.hessian)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "other"}, "of run 'other'"),
        ({"nonce": "1" * 32}, "another request"),
        ({"site": "b"}, "name of site 'b'"),
    ],
)
def test_an_answer_of_another_origin_is_refused(changes, words, tmp_path) -> None:
    task, answer = told(tmp_path, QUESTIONS["count"], **changes)
    with pytest.raises(UpdateError, match=f"site c: calibration refused: .*{words}"):
        check_statistics("c", task, answer, LIMITS)


def test_more_cases_than_are_allowed_are_refused(tmp_path) -> None:
    for step in ("count", "scale", "limit"):
        task, answer = told(tmp_path, QUESTIONS[step])
        most = max(
            sum(CalibrationCases(CASES["c"]).respond(QUESTIONS["count"]).classes(m)) for m in BY_ID
        )
        check_statistics("c", task, answer, FederationConfig(max_cases=most))
        with pytest.raises(UpdateError, match="cases"):
            check_statistics("c", task, answer, FederationConfig(max_cases=most - 1))


SPOILT = {
    "count": [
        lambda t: t.pop("cells"),
        lambda t: t.update(cells=None),
        lambda t: t["true_classes"].pop("idh"),
        lambda t: t["true_classes"].update(other=t["true_classes"]["idh"]),
        lambda t: t["true_classes"]["idh"][0].append(1),
        lambda t: t["true_classes"]["idh"][0].__setitem__(0, -1),
        lambda t: t["true_classes"]["idh"][0].__setitem__(0, 1.5),
        lambda t: t["true_classes"]["idh"][0].__setitem__(0, 10**30),
        lambda t: t["not_finite"].update(idh="1"),
        lambda t: t.update(hidden=["other"]),
        lambda t: t.update(sums={"idh": [1, 0.0, [0.0], [[0.0]]]}),
        lambda t: t.update(true_classes=[]),
    ],
    "scale": [
        lambda t: t["sums"].pop("idh"),
        lambda t: t["sums"]["idh"].pop(),
        lambda t: t["sums"]["idh"].__setitem__(0, 2.5),
        lambda t: t["sums"]["idh"].__setitem__(1, float("nan")),
        lambda t: t["sums"]["idh"].__setitem__(1, "0"),
        lambda t: t["sums"]["idh"][2].pop(),
        lambda t: t["sums"]["idh"][3][0].__setitem__(0, float("inf")),
        lambda t: t.update(hidden=["idh"]),
    ],
    "limit": [
        lambda t: t["confidences"].pop("grade"),
        lambda t: t["confidences"]["idh"].pop(),
        lambda t: t["confidences"]["idh"][0].__setitem__(0, 0.5),
    ],
}


@pytest.mark.parametrize(
    ("step", "number"), [(step, n) for step, own in SPOILT.items() for n in range(len(own))]
)
def test_a_garbled_answer_is_refused(step, number, tmp_path) -> None:
    task, answer = told(tmp_path, QUESTIONS[step])
    check_statistics("c", task, answer, LIMITS)
    note = read_note(answer)
    spoilt = json.loads(json.dumps(note))
    SPOILT[step][number](spoilt["statistics"])
    save(answer, {}, spoilt)
    with pytest.raises(UpdateError, match="site c: calibration refused"):
        check_statistics("c", task, answer, LIMITS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda q: q.update(step="upload"),
        lambda q: q.update(places={"other": {"kind": "platt", "coefficients": [0.0, 0.0]}}),
        lambda q: q["places"]["idh"].update(kind="identity"),
        lambda q: q["places"]["idh"]["coefficients"].append(0.0),
        lambda q: q["places"]["idh"].update(coefficients=[float("nan"), 0.0]),
        lambda q: q.pop("cells"),
    ],
)
def test_a_garbled_question_is_refused_at_the_site(spoil, tmp_path) -> None:
    save_request(tmp_path / "task", CalibrationRequest("run", NONCE, 2, QUESTIONS["scale"], None))
    note = read_note(tmp_path / "task")
    spoil(note["statistics"])
    save(tmp_path / "task", {}, note)
    with pytest.raises(
        UpdateError, match=r"its field statistics|the request for statistics is malformed"
    ):
        load_request(tmp_path / "task")


def test_sums_of_other_cases_than_were_counted_are_refused(tiny_study, tmp_path) -> None:
    def more(task, reply):
        note = read_note(reply.response)
        for own in note["statistics"]["sums"].values():
            own[0] += 1
        save(reply.response, {}, note)
        return reply

    found = Sites(tiny_study, tmp_path, c=more).run()
    assert found.sites == ("a", "b")
    assert (
        "cases, after 25 were counted" in found.failures["c"]
        or "were counted" in found.failures["c"]
    )
    assert found.calibration == pooled("a", "b")
