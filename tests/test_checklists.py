"""The checklists: every item, nothing claimed that the run does not know, figures from its rows."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections import Counter

import pytest
from made_up_answers import answer as made_up_answer
from made_up_facts import make_facts, make_group
from test_report import HOSTILE, Reader

from gliofed.calibration.evaluation import evaluate_calibration
from gliofed.errors import StudyError
from gliofed.evaluation.claims import Evidence
from gliofed.evaluation.results import ScoreRow
from gliofed.experiments.run_facts import count_group
from gliofed.fine_tuning_config import InitConfig
from gliofed.reporting.checklists.answers import FOR_AUTHORS, RULES, STATES, TEMPLATES
from gliofed.reporting.checklists.checklist import (
    AnsweredChecklist,
    answer_checklist,
    checklist_csv,
)
from gliofed.reporting.checklists.claim import CLAIM
from gliofed.reporting.checklists.run_facts import RunFacts, main_model, pooled_rows
from gliofed.reporting.checklists.selection import MAIN, figure
from gliofed.reporting.checklists.statements import read_statements
from gliofed.reporting.checklists.tripod_ai import TRIPOD_AI
from gliofed.reporting.html.formatting import estimate, metric_digits
from gliofed.reporting.study.content import ScoredPredictions, StudyContent
from gliofed.reporting.study.page import render_study_page
from gliofed.runtime.templates import packaged_text
from gliofed.study import CalibrationConfig
from gliofed.types import UNKNOWN, Case, Labels, Person, Sequence

LISTS = (TRIPOD_AI, CLAIM)
FACTS = make_facts()


def said(checklist, number: str, facts: RunFacts = FACTS, **words: str):
    found = answer_checklist(checklist, facts, words)
    return next(a for a in found.answers if a.item.number == number)


def without_role(facts: RunFacts, role: str) -> RunFacts:
    return dataclasses.replace(facts, rows=tuple(r for r in facts.rows if r.role != role))


def every_answer(facts: RunFacts) -> list:
    return [a for c in LISTS for a in answer_checklist(c, facts, {}).answers]


# ---- the lists themselves


def test_tripod_ai_has_its_27_items_with_52_parts() -> None:
    parts = {"3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg",
             "18": "abcdef", "20": "abc", "23": "ab", "27": "abc"}  # fmt: skip
    numbers = [f"{n}{p}" for n in map(str, range(1, 28)) for p in parts.get(n, [""])]
    assert [i.number for i in TRIPOD_AI.items] == numbers
    assert len(numbers) == 52


def test_claim_has_its_44_items() -> None:
    assert [i.number for i in CLAIM.items] == [str(n) for n in range(1, 45)]


@pytest.mark.parametrize("checklist", LISTS, ids=lambda c: c.id)
def test_every_item_asks_something_and_is_answered_in_a_state(checklist) -> None:
    found = answer_checklist(checklist, FACTS, {})
    assert [a.item for a in found.answers] == list(checklist.items)
    for a in found.answers:
        assert a.item.asks.endswith(".")
        assert a.item.topic
        assert a.text.endswith((".", "...")), a.item.number
        assert a.state in STATES
        if a.state != "answered":
            left = re.search(r"authors|No |no |None|Not ", a.text)
            assert left, f"{a.item.number} does not say what is missing"
    assert found.counts == Counter(a.state for a in found.answers)
    assert sum(found.counts.values()) == len(checklist.items)


def test_weights_of_another_model_are_stated_and_left_to_the_authors_in_part() -> None:
    plain = said(CLAIM, "24")
    assert plain.state == "answered"
    assert "no weights of another model" in plain.text
    init = InitConfig("ab" * 32, frozen=("encoder",), fresh=("mgmt",))
    begun = said(
        CLAIM, "24", dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, init=init))
    )
    assert begun.state == "partly"
    assert f"From model {'ab' * 32}; frozen: encoder; new heads: mgmt." in begun.text
    assert "on whose cases that model was trained" in begun.text


@pytest.mark.parametrize(
    ("checklist", "numbers"),
    [
        (TRIPOD_AI, "2 3a 3c 5b 6c 8b 8c 17 18a 18b 18c 18d 19 25 27c"),
        (CLAIM, "2 5 11 15 16 17 18 34 42 44"),
    ],
    ids=lambda x: getattr(x, "id", ""),
)
def test_what_no_run_can_know_stays_open(checklist, numbers) -> None:
    for number in numbers.split():
        a = said(checklist, number)
        assert a.state == "open", number
        assert a.text.startswith("For the authors to say"), number


def test_the_numbers_above_the_text_of_an_answer_are_those_of_the_items_that_use_it() -> None:
    written = {}
    for template in TEMPLATES:
        for numbers, name in re.findall(
            r"\{# (TRIPOD\+AI.*?|CLAIM.*?) #\}\n\{% macro (\w+)", packaged_text(template)
        ):
            lists = (part.split(" ", maxsplit=1) for part in numbers.split("; "))
            written[name] = {c: own.split(", ") for c, own in lists}
    used: dict[str, dict[str, list[str]]] = {}
    for checklist, title in ((TRIPOD_AI, "TRIPOD+AI"), (CLAIM, "CLAIM")):
        for item in checklist.items:
            used.setdefault(item.answer, {}).setdefault(title, []).append(item.number)
    assert set(used) == set(RULES)
    del used[FOR_AUTHORS]
    assert written == used


def test_no_answer_has_a_gap_where_a_word_is_left_out() -> None:
    inside = without_role(FACTS, "external")
    for a in [*every_answer(FACTS), *every_answer(inside)]:
        gap = re.search(r" [.,;:)]|\( |[,;:] ?\.|[,;)][a-zA-Z]|[a-z]\.[A-Z]|None(?![:. ])", a.text)
        assert not gap, f"{a.item.number}: {gap}"


# ---- nothing is claimed that is not so


def test_an_external_test_is_claimed_where_there_is_one_and_only_there() -> None:
    inside = without_role(FACTS, "external")
    assert said(CLAIM, "33").state == "answered"
    assert said(CLAIM, "33", inside).state == "open"
    assert said(CLAIM, "33", inside).text.startswith("No external test")
    assert said(TRIPOD_AI, "20c").state == "answered"
    assert said(TRIPOD_AI, "20c", inside).state == "open"
    assert said(TRIPOD_AI, "16", inside).state == "open"
    assert "no external test" in said(TRIPOD_AI, "1", inside).text
    assert "1 hospital that trained nothing" in said(TRIPOD_AI, "1").text
    for a in every_answer(inside):
        assert not re.search(r"External test( on|:)", a.text), a.item.number
    assert "No external test" in said(CLAIM, "40", inside).text
    assert "No external test" not in said(CLAIM, "40").text


def test_a_figure_that_does_not_exist_is_no_external_test() -> None:
    rows = tuple(
        dataclasses.replace(r, value=None, low=None, high=None, note="only one class")
        if r.role == "external" else r
        for r in FACTS.rows
    )  # fmt: skip
    assert said(CLAIM, "33", dataclasses.replace(FACTS, rows=rows)).state == "open"


def test_hospitals_held_out_in_turn_are_not_called_external_to_the_study() -> None:
    data = dataclasses.replace(FACTS.study.data, external=(), leave_one_out=("gent", "leiden"))
    study = dataclasses.replace(FACTS.study, data=data)
    a = said(CLAIM, "33", dataclasses.replace(FACTS, study=study))
    assert a.state == "partly"
    assert "internal-external" in a.text
    assert "trained nothing" not in a.text


def test_an_internal_test_needs_figures_of_held_out_patients() -> None:
    assert said(CLAIM, "32").state == "answered"
    assert said(CLAIM, "32", without_role(FACTS, "holdout")).state == "open"


def test_a_run_without_a_figure_claims_none() -> None:
    bare = dataclasses.replace(FACTS, rows=())
    for checklist, number in ((TRIPOD_AI, "12e"), (TRIPOD_AI, "23a"), (TRIPOD_AI, "23b"),
                              (CLAIM, "29"), (CLAIM, "37"), (CLAIM, "38"), (CLAIM, "39")):  # fmt: skip
        assert said(checklist, number, bare).state == "open", number
        assert said(checklist, number).state != "open", number


def test_a_calibration_is_told_of_where_one_was_tried() -> None:
    results = [
        made_up_answer(i, {"idh": ("wildtype", "mutant")[i % 2]}, role=role, site=role)
        for role in ("holdout", "external")
        for i in range(4)
    ]
    tried = evaluate_calibration(results, "federated", CalibrationConfig(), 100)
    done = dataclasses.replace(FACTS, calibration=tried)
    for number, words in (("12f", "Platt scaling"), ("13", "Platt scaling")):
        assert words not in said(TRIPOD_AI, number).text
        assert words in said(TRIPOD_AI, number, done).text
    untold = dataclasses.replace(
        FACTS, calibration=evaluate_calibration([], "federated", CalibrationConfig(), 100)
    )
    assert said(TRIPOD_AI, "12f", untold) == said(TRIPOD_AI, "12f")


def test_subgroups_are_claimed_only_where_rows_have_a_stratum() -> None:
    row = dataclasses.replace(pooled_rows(FACTS.rows, "external")[0], stratum="age below 50")
    split = dataclasses.replace(FACTS, evidence=Evidence((), (), (), (), (), (), (row,), ()))
    for checklist, number in ((TRIPOD_AI, "23a"), (TRIPOD_AI, "14"), (CLAIM, "37")):
        assert said(checklist, number).state == "partly"
        assert said(checklist, number, split).state == "answered"
        assert "age below 50" in said(checklist, number, split).text
    assert said(CLAIM, "30").state == "open"
    assert said(CLAIM, "30", split).state == "partly"


def test_differences_between_hospitals_need_two_of_them() -> None:
    assert said(TRIPOD_AI, "23b").state == "partly"
    assert "over 3 hospitals" in said(TRIPOD_AI, "23b").text  # those with held-out patients
    one = tuple(r for r in FACTS.rows if r.site in {"all", "gent", "amsterdam"})
    assert said(TRIPOD_AI, "23b", dataclasses.replace(FACTS, rows=one)).state == "open"


def test_scanners_are_known_only_of_cases_that_tell_them() -> None:
    assert said(CLAIM, "13").state == "open"
    told = dataclasses.replace(FACTS, all_cases=make_group(241, scanners=17))
    assert said(CLAIM, "13", told).state == "partly"
    assert "known for 17 of 241 cases" in said(CLAIM, "13", told).text


@pytest.mark.parametrize(
    ("brain", "state"), [("given", "partly"), ("stripped", "partly"), ("deepbet", "answered")]
)
def test_a_given_brain_mask_is_somebodys_work(brain, state) -> None:
    prepare = dataclasses.replace(FACTS.study.prepare, brain=brain)
    facts = dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, prepare=prepare))
    assert said(TRIPOD_AI, "9c", facts).state == state


def test_held_out_patients_are_an_internal_test_only_where_there_are_some() -> None:
    (division,) = FACTS.splits
    none = dataclasses.replace(division, holdout=make_group(0))
    facts = dataclasses.replace(FACTS, splits=(none,))
    assert "Internal test: patients held out" in said(TRIPOD_AI, "12c").text
    assert "Internal test: none" in said(TRIPOD_AI, "12c", facts).text


def test_only_the_main_models_weights_are_specified() -> None:
    other = dataclasses.replace(FACTS.models[0], model="pooled", file="models/b.safetensors")
    facts = dataclasses.replace(FACTS, models=(*FACTS.models, other))
    assert "models/a.safetensors" in said(TRIPOD_AI, "22", facts).text
    assert "models/b.safetensors" not in said(TRIPOD_AI, "22", facts).text


def test_steps_that_a_study_leaves_out_are_not_named() -> None:
    prepare = dataclasses.replace(FACTS.study.prepare, register=False, space="scanner", bias=False)
    facts = dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, prepare=prepare))
    for word in ("rigid", "MNI152", "N4"):
        assert word in said(CLAIM, "9").text
        assert word not in said(CLAIM, "9", facts).text


def test_own_data_are_not_the_runs_to_share() -> None:
    assert "UCSF-PDGM, CC BY 4.0" in said(TRIPOD_AI, "18e").text
    own = tuple(dataclasses.replace(h, source="") for h in FACTS.hospitals)
    assert said(TRIPOD_AI, "18e", dataclasses.replace(FACTS, hospitals=own)).state == "open"


# ---- figures


def test_figures_are_those_of_the_rows() -> None:
    for row in pooled_rows(FACTS.rows, "external"):
        assert (figure(row) in said(CLAIM, "33").text) == (row.metric in MAIN)
        assert f"{estimate(row, metric_digits(row.metric))}, n = {row.n}" in figure(row)
    target = next(r for r in pooled_rows(FACTS.rows, "external") if r.metric == "dice")
    other = dataclasses.replace(target, value=0.1234, low=0.0567, high=0.2345, n=77)
    rows = tuple(other if r is target else r for r in FACTS.rows)
    changed = dataclasses.replace(FACTS, rows=rows)
    for checklist, number in ((TRIPOD_AI, "23a"), (CLAIM, "33"), (CLAIM, "37")):
        text = "0.123 (0.057 to 0.234), n = 77"
        assert text not in said(checklist, number).text
        assert text in said(checklist, number, changed).text


def test_a_figure_that_does_not_exist_says_why() -> None:
    target = next(r for r in pooled_rows(FACTS.rows, "external") if r.task == "mgmt")
    none = dataclasses.replace(target, value=None, low=None, high=None, note="only methylated")
    rows = tuple(none if r is target else r for r in FACTS.rows)
    assert "n/a, n = " in said(CLAIM, "33", dataclasses.replace(FACTS, rows=rows)).text
    assert "only methylated" in said(CLAIM, "33", dataclasses.replace(FACTS, rows=rows)).text


def test_counts_are_those_of_the_facts() -> None:
    text = said(TRIPOD_AI, "20a").text
    for part in ("242 cases read", "preparation: 1;", "hospital: 1.", "in training: 150,",
                 "training hospitals: 30,", "do not train: 60"):  # fmt: skip
        assert part in text
    assert "T1CE in 48 of 241 cases" in said(TRIPOD_AI, "11").text
    assert "median age 55 (quartiles 41 and 66" in said(TRIPOD_AI, "20b").text
    assert FACTS.overlap in said(CLAIM, "20").text
    fewest = min(r.n for role in ("external", "holdout") for r in pooled_rows(FACTS.rows, role)
                 if r.value is not None)  # fmt: skip
    assert f"rests on {fewest} case" in said(CLAIM, "40").text


def test_the_metrics_named_are_those_of_the_rows() -> None:
    assert "HD95" in said(CLAIM, "28").text
    rows = tuple(r for r in FACTS.rows if not r.metric.startswith("hd95_mm"))
    assert "HD95" not in said(CLAIM, "28", dataclasses.replace(FACTS, rows=rows)).text


def test_the_accounts_speak_of_the_federated_model_else_of_the_first() -> None:
    def row(model: str) -> ScoreRow:
        return ScoreRow(model, "external", "all", "mask", "dice", 9, 0.5, 0.4, 0.6, 1)

    assert main_model([row("pooled"), row("federated")]) == "federated"
    assert main_model([row("alone:median"), row("pooled")]) == "pooled"
    assert main_model([]) == ""


# ---- what the authors say


def test_the_authors_words_settle_an_item_and_stay_theirs(tmp_path) -> None:
    path = tmp_path / "words.toml"
    path.write_text(
        '[tripod-ai]\n17 = " Approved by X. "\n18a = "None."\n[card]\nlicense = "other"\n'
    )
    words = read_statements(path)
    assert words.card.license == "other"
    found = answer_checklist(TRIPOD_AI, FACTS, words.items["tripod-ai"])
    plain = answer_checklist(TRIPOD_AI, FACTS, {})
    by = {a.item.number: a for a in found.answers}
    assert (by["17"].state, by["17"].authors) == ("answered", "Approved by X.")
    assert by["17"].text == said(TRIPOD_AI, "17").text
    assert found.counts["open"] == plain.counts["open"] - 2
    assert words.items["claim"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tripod-ai]\n18g = "x"', r"\[tripod-ai\]: unknown item '18g'; the nearest one is '18"),
        ('[claim]\n44a = "x"', "unknown item '44a'; the nearest one is '44'"),
        ('[claims]\n44 = "x"', "unknown table 'claims'; the nearest one is 'claim'"),
        ('[card]\nlicence = "x"', "unknown key 'licence'; the nearest valid key is 'license'"),
        ("[claim]\n44 = 3", "expected a text that is not blank, found 3"),
        ('[claim]\n44 = " "', "expected a text that is not blank"),
        ('[card]\nlicense = ""', "expected a text that is not blank"),
        ("claim = 3", "expected a table"),
        ("claim", "not a TOML file"),
    ],
)
def test_a_file_of_statements_is_read_strictly(tmp_path, text, message) -> None:
    path = tmp_path / "words.toml"
    path.write_text(text)
    with pytest.raises(StudyError, match=message):
        read_statements(path)


def test_a_missing_file_of_statements_is_said(tmp_path) -> None:
    with pytest.raises(StudyError, match="no such statements file"):
        read_statements(tmp_path / "none.toml")


# ---- where they are shown


def shown(facts: RunFacts = FACTS, **words: str) -> tuple[AnsweredChecklist, ...]:
    return tuple(answer_checklist(c, facts, words) for c in LISTS)


def test_the_csv_reads_back() -> None:
    found = answer_checklist(CLAIM, FACTS, {"44": 'Funded by "A", B\nand C'})
    lines = list(csv.DictReader(io.StringIO(checklist_csv(found))))
    assert [x["item"] for x in lines] == [i.number for i in CLAIM.items]
    assert lines[-1]["authors"] == 'Funded by "A", B\nand C'
    assert [x["text"] for x in lines] == [a.text for a in found.answers]


PAGE = StudyContent("made up", False, ScoredPredictions((), ()), (), (), (), (), ())


def test_the_page_counts_states_and_shows_every_item() -> None:
    found = shown()
    page = render_study_page(dataclasses.replace(PAGE, checklists=found))
    reader = Reader(page)
    for answers in found:
        assert answers.checklist.citation in reader.seen
        line = page[page.index(f"<h3>{answers.checklist.title}</h3>") :].split("</p>")[0]
        for state, n in answers.counts.items():
            assert f"<b>{n}</b> {state}" in line
        for a in answers.answers:
            assert a.text in reader.seen
    assert {"aria-label": "Every item of TRIPOD+AI"}.items() <= next(
        d for d in reader.all("div") if d.get("aria-label", "").endswith("TRIPOD+AI")
    ).items()
    assert all(th.get("scope") in {"col", "row"} for th in reader.all("th"))
    assert {a["href"][1:] for a in reader.all("a")} <= {
        attrs["id"] for _, attrs in reader.tags if "id" in attrs
    }
    assert 'href="#checklists"' in page
    assert "checklists" not in Reader(render_study_page(PAGE)).seen


def test_hostile_words_stay_text() -> None:
    excluded = ((HOSTILE, HOSTILE, HOSTILE),)
    hospitals = tuple(dataclasses.replace(h, name=HOSTILE, source=HOSTILE) for h in FACTS.hospitals)
    facts = dataclasses.replace(FACTS, overlap=HOSTILE, hospitals=hospitals, excluded=excluded)
    words = {i.number: HOSTILE for i in CLAIM.items}
    page = render_study_page(dataclasses.replace(PAGE, checklists=shown(facts, **words)))
    reader = Reader(page)
    assert reader.all("script") == []
    assert not any("evil" in image["src"] for image in reader.all("img"))
    assert f"The authors: {HOSTILE}" in reader.seen


# ---- counting


def make_case(number: int, **changes: object) -> Case:
    images = dict.fromkeys(Sequence)
    whole = {"id": f"sub-{number}", "site": "a", "patient": f"p{number}", "images": images,
             "mask": None, "labels": Labels()}  # fmt: skip
    return Case(**{**whole, **changes})


def test_a_group_counts_what_is_known_and_what_is_not() -> None:
    cases = [
        make_case(1, labels=Labels({"idh": "mutant"}), person=Person("F", 40.0)),
        make_case(2, labels=Labels({"idh": "wildtype"}), person=Person("M", 60.0, "x")),
        make_case(3, patient="p2", person=Person(UNKNOWN, 50.0), images={Sequence.T2: None}),
    ]
    group = count_group(cases)
    assert (group.cases, group.patients, group.masks, group.scanners) == (3, 2, 0, 1)
    assert (group.classes["idh"], group.unknown("idh"), group.unknown("mgmt")) == ((1, 1), 1, 3)
    assert group.missing == {Sequence.T1: 1, Sequence.T1CE: 1, Sequence.T2: 0, Sequence.FLAIR: 1}
    assert (group.sexes, group.ages, group.age_quartiles) == ({"F": 1, "M": 1}, 3, None)
    four = count_group([*cases, make_case(4, person=Person(age=70.0))])
    assert four.age_quartiles == (47.5, 55.0, 62.5)  # linear between order statistics
    assert count_group([]).age_quartiles is None
