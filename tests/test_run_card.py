"""The model card of a run: its head reads as YAML, its figures are the rows', its gaps are visible."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from made_up_facts import make_facts
from test_report import HOSTILE

from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.checklists.checklist import answer_checklist
from gliofed.reporting.checklists.claim import CLAIM
from gliofed.reporting.checklists.run_facts import RunFacts, pooled_rows
from gliofed.reporting.checklists.statements import CardStatements
from gliofed.reporting.checklists.tripod_ai import TRIPOD_AI
from gliofed.reporting.html.formatting import interval, metric_digits
from gliofed.reporting.model_card import CardHeader, front_matter
from gliofed.reporting.study.model_card import NOT_STATED, run_card
from gliofed.runtime.templates import plain

FACTS = make_facts()


def card(facts: RunFacts = FACTS, words: CardStatements | None = None) -> str:
    checked = [answer_checklist(c, facts, {}) for c in (TRIPOD_AI, CLAIM)]
    return run_card(facts, checked, words or CardStatements())


def head(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_head_is_that_of_a_model_hub() -> None:
    found = head(card())
    assert (found["license"], found["library_name"]) == ("unknown", "gliofed")
    assert "research-use-only" in found["tags"]
    assert "datasets" not in found  # only hospitals' own data were trained on
    (entry,) = found["model-index"]
    assert entry["name"] == FACTS.study.name
    rows = [r for r in pooled_rows(FACTS.rows, "external") if r.value is not None]
    metrics = [m for r in entry["results"] for m in r["metrics"]]
    assert len(metrics) == len(rows) > 10
    for metric, row in zip(metrics, rows, strict=True):
        digits = metric_digits(row.metric)
        assert metric["type"] == row.metric
        assert metric["value"] == pytest.approx(row.value, abs=0.51 * 10**-digits)
        assert f"n = {row.n}" in metric["name"]
        span = "no interval"
        if row.low is not None:
            span = f"95 % interval {interval(row.low, row.high, digits)}"
        assert span in metric["name"]
    assert {r["dataset"]["type"] for r in entry["results"]} == {"external"}
    kinds = {r["task"]["type"] for r in entry["results"]}
    assert kinds == {"image-segmentation", "image-classification"}


def test_without_an_external_test_the_head_says_held_out_and_without_any_nothing() -> None:
    inside = dataclasses.replace(FACTS, rows=tuple(r for r in FACTS.rows if r.role == "holdout"))
    results = head(card(inside))["model-index"][0]["results"]
    assert {r["dataset"]["name"] for r in results} == {"holdout test: held-out patients"}
    bare = card(dataclasses.replace(FACTS, rows=()))
    assert "model-index" not in head(bare)
    assert "There are no figures." in bare


def test_a_public_set_is_named_where_it_trains() -> None:
    def with_set(site: str) -> dict:
        data = dataclasses.replace(FACTS.study.data, formats={site: "ucsf_pdgm"})
        study = dataclasses.replace(FACTS.study, data=data)
        return head(card(dataclasses.replace(FACTS, study=study)))

    assert with_set("gent")["datasets"] == ["ucsf_pdgm"]
    assert "datasets" not in with_set("amsterdam")


def test_what_the_authors_have_not_said_is_a_visible_gap() -> None:
    assert card().count(NOT_STATED) == 4
    words = CardStatements("cc-by-4.0", "A. Author", "1.0", "a@b.org")
    text = card(words=words)
    assert NOT_STATED not in text
    assert head(text)["license"] == "cc-by-4.0"
    assert "| authors | A. Author |" in text


def test_the_card_says_use_data_gaps_overlap_and_digests() -> None:
    text = card()
    for said in (RESEARCH_USE_ONLY, "## Intended use", "## Out-of-scope use", "### Network data format",
                 "## Data", "### What is not known", "## Test", "## Limits", "## Weights",
                 FACTS.study.digest, "ab" * 32, "models/a.safetensors", plain(FACTS.overlap),
                 "Not for diagnosis", "1,204,331 parameters", "Collins et al. 2024",
                 "cases in training: 150,"):  # fmt: skip
        assert said in text
    body = text.split("## Data\n")[1]
    lines = [x for x in body.splitlines() if x.startswith(("| gent", "| amsterdam"))][:2]
    assert lines[0].startswith("| gent | training | own data | 60 | 54 |")
    assert lines[1].startswith("| amsterdam | external test | UCSF-PDGM | 61 | 55 |")
    assert "T1CE in 12" in lines[0]


def test_every_row_of_the_model_is_in_the_table_with_n_and_interval() -> None:
    lines = card().split("## Test\n")[1].split("## Limits")[0].splitlines()
    lines = [x for x in lines if x.startswith("| ")][1:]
    rows = [r for r in FACTS.rows if r.model == "federated"]
    assert len(lines) == len(rows) > 30
    for line, row in zip(lines, rows, strict=True):
        assert f" | {row.n} | " in line
        if row.low is not None:
            assert interval(row.low, row.high, metric_digits(row.metric)) in line


def test_an_untrained_marker_is_said_to_have_no_answer() -> None:
    loss = dataclasses.replace(FACTS.study.loss, markers={**FACTS.study.loss.markers, "mgmt": 0.0})
    study = dataclasses.replace(FACTS.study, loss=loss)
    text = card(dataclasses.replace(FACTS, study=study))
    assert "Not trained, so that there is no answer: MGMT" in text
    assert "| out | `mgmt`" not in text
    assert "Not trained" not in card()


def test_text_from_elsewhere_stays_text() -> None:
    hospitals = tuple(dataclasses.replace(h, name=HOSTILE) for h in FACTS.hospitals)
    study = dataclasses.replace(FACTS.study, name=f"{HOSTILE}\n---\n: x")
    facts = dataclasses.replace(FACTS, study=study, hospitals=hospitals, overlap=HOSTILE)
    text = card(facts, CardStatements(license=HOSTILE, authors=HOSTILE))
    assert head(text)["license"] == HOSTILE
    assert head(text)["model-index"][0]["name"] == study.name
    assert "<script" not in text.split("---\n", 2)[2].replace("\\<script", "")


def test_the_head_names_no_site() -> None:
    text = front_matter(CardHeader(FACTS.study, FACTS.rows))
    assert not any(h.name in text.replace(FACTS.study.name, "").lower() for h in FACTS.hospitals)


def test_equal_facts_give_equal_text() -> None:
    assert card() == card(make_facts())
