"""Personal models: what each site trains of the federated one, and how the two are compared."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import THIN, TINY
from made_up_answers import answer
from small_study import write_study
from test_synchronous import CPU, same

from gliofed.data.phantom import PhantomHospital
from gliofed.data.splits import Split
from gliofed.errors import CheckpointError, StudyError
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.claims import collect_evidence
from gliofed.evaluation.personal import compared_models, own_personal
from gliofed.experiments import parallel
from gliofed.experiments.model_runs import plan_model_runs
from gliofed.experiments.plain_training import train_plainly
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunContext, RunOptions
from gliofed.experiments.train_and_test import train_model
from gliofed.federated.checkpoint import last_committed
from gliofed.fine_tuning_config import PersonalConfig
from gliofed.models.folder import read_model
from gliofed.models.network import part_of
from gliofed.models.presets import PRESETS
from gliofed.reporting.study.personal import personal_lines
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import load_study, parse_study

LABELS = ({"idh": "mutant", "grade": "2"}, {"idh": "wildtype", "grade": "4"})


@pytest.fixture
def trained(tiny_study, make_prepared, tmp_path):
    """The context of a study of two sites, its runs by name, and the federated model's weights."""
    study = dataclasses.replace(
        tiny_study,
        models=("federated", "personal"),
        train=dataclasses.replace(tiny_study.train, epochs=1, weight_decay=0.5),
        personal=PersonalConfig(epochs=2, lr=1e-2),
    )
    cases = {s: [make_prepared(f"{s}{i}", LABELS[i % 2], s) for i in range(2)] for s in "ab"}
    split = Split(
        "external", {s: tuple(c.case for c in own) for s, own in cases.items()}, {}, (), ()
    )
    prepared = {str(c.case): c for own in cases.values() for c in own}
    context = RunContext(study, tmp_path, CPU, prepared)
    runs = {r.model: r for r in plan_model_runs(study, {1: [split]})}
    return context, runs, train_model(context, runs["federated"], NO_PROGRESS).state.weights


def test_each_site_with_cases_has_a_run_that_begins_with_the_federated_one(trained) -> None:
    context, runs, _ = trained
    assert list(runs) == ["federated", "personal:a", "personal:b"]
    own = runs["personal:a"]
    assert own.base == runs["federated"]
    assert set(own.sites) == {"a"}
    settings = own.effective_study(context.study).train
    assert (settings.epochs, settings.lr) == (2, 1e-2)
    assert own.untrained(context.study, context.prepared) == ("codel_1p19q", "mgmt")
    # other cases at another site make another federated model, and so another personal one
    fewer = dataclasses.replace(own.base, sites={"a": own.base.sites["a"]})
    other = dataclasses.replace(own, base=fewer)
    ids = {
        r.run_id(context.study, context.prepared)
        for r in (own, other, dataclasses.replace(own, base=None))
    }
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("parts", "moved"),
    [
        ("all", {"encoder", "decoder", "heads"}),
        ("heads", {"heads"}),
        ("norm_and_heads", {"norm", "heads"}),
    ],
)
def test_a_site_trains_the_chosen_parts_and_no_other_bit(parts, moved, trained) -> None:
    context, runs, base = trained
    study = dataclasses.replace(
        context.study, personal=dataclasses.replace(context.study.personal, parts=parts)
    )
    end = train_plainly(
        dataclasses.replace(context, study=study, out=context.out),
        dataclasses.replace(runs["personal:a"], base=rebased(context, study, runs)),
        NO_PROGRESS,
        lambda state: None,
    ).weights

    def kind(name):
        return "norm" if ".norm." in name and parts == "norm_and_heads" else part_of(name)

    assert {kind(n) for n, t in end.items() if not torch.equal(t, base[n])} == moved


def rebased(context, study, runs):
    """The federated run under a study of another digest, trained anew: its settings are the same."""
    run = runs["federated"]
    if study.digest != context.study.digest:
        for path in (run.folder(context.out)).rglob("*.safetensors"):
            path.unlink()
        train_model(dataclasses.replace(context, study=study), run, NO_PROGRESS)
    return run


def test_it_repeats_to_the_bit_and_continues_where_it_was_stopped(trained, tmp_path) -> None:
    context, runs, _ = trained
    run = runs["personal:b"]
    whole = train_plainly(context, run, NO_PROGRESS, lambda state: None)
    rounds = run.folder(context.out) / "rounds"
    for path in rounds.glob("*"):
        path.unlink()

    class Stop(Exception):
        pass

    def stop(state) -> None:
        raise Stop

    with pytest.raises(Stop):
        train_plainly(context, run, NO_PROGRESS, stop)
    begun = last_committed(rounds, run.run_id(context.study, context.prepared))
    assert (begun.rounds, whole.rounds) == (1, 2)
    again = train_plainly(context, run, NO_PROGRESS, lambda state: None)
    assert same(again.weights, whole.weights)
    assert not same(again.weights, begun.weights)


def test_without_a_complete_federated_model_there_is_no_personal_one(trained) -> None:
    context, runs, _ = trained
    for path in runs["federated"].folder(context.out).rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="has no complete training, which personal:a"):
        train_plainly(context, runs["personal:a"], NO_PROGRESS, lambda state: None)


# ---- scores


def made_up():
    """Dice of two hospitals' held-out patients and an outside one's: global, and two personal."""
    rng = np.random.default_rng(1)
    out = []
    for site, role, gain in (
        ("a", "holdout", 0.1),
        ("b", "holdout", -0.05),
        ("c", "external", 0.0),
    ):
        for n in range(12):
            base = float(rng.uniform(0.5, 0.8))
            named = {"case": f"{site}{n}", "patient": f"{site}{n}", "site": site, "role": role}
            out.append(answer(n, model="federated", dice=base, **named))
            for model in ("a", "b"):
                dice = base + (gain if model == site else -0.3) + float(rng.normal(0, 0.01))
                out.append(answer(n, model=f"personal:{model}", dice=dice, **named))
    return out


def test_each_hospitals_patients_are_scored_by_its_own_model() -> None:
    results = made_up()
    own = own_personal(results)
    assert {(r.model, r.role) for r in own} == {("personal", "holdout")}
    assert len(own) == 24
    by_case = {(r.model, r.case): r for r in results}
    assert all(r.dice == by_case[f"personal:{r.site}", r.case].dice for r in own)
    assert own_personal([r for r in results if r.model == "federated"]) == []


def test_the_table_has_both_models_n_and_the_paired_difference() -> None:
    results = made_up()
    rows = score_table([*results, *own_personal(results)], 200)
    lines = [x for x in personal_lines(rows, "federated") if x.measure.startswith("Dice")]
    assert [(x.site, x.n) for x in lines] == [("all hospitals", 24), ("a", 12), ("b", 12)]
    for line in lines[1:]:
        gaps = [
            r.dice - b.dice
            for r in own_personal(results)
            for b in results
            if (b.model, b.case) == ("federated", r.case) and r.site == line.site
        ]
        (row,) = (
            r
            for r in rows
            if (r.model, r.site, r.metric, r.role) == ("personal", line.site, "dice", "holdout")
        )
        assert row.difference == pytest.approx(np.mean(gaps), abs=1e-12)
        assert row.difference_low < np.mean(gaps) < row.difference_high
        assert (row.difference_low > 0) == (line.site == "a")
        assert line.difference.startswith("+0.1" if line.site == "a" else "\N{MINUS SIGN}0.0")
    assert personal_lines(score_table(results[:1], 100), "federated") == ()
    assert not any("too few" in x.note for x in lines)
    few = [r for r in results if int(r.case[1:]) < 9]
    rows = score_table([*few, *own_personal(few)], 100)
    notes = {x.site: x.note for x in personal_lines(rows, "federated") if x.measure[:4] == "Dice"}
    assert ["too few for any claim" in notes[s] for s in ("all hospitals", "a", "b")] == [
        False,
        True,
        True,
    ]


def test_personal_models_leave_the_family_of_external_comparisons_as_it_is() -> None:
    results = made_up()
    pooled = [dataclasses.replace(r, model="pooled") for r in results if r.model == "federated"]
    plain = [*(r for r in results if r.model == "federated"), *pooled]
    assert {r.model for r in compared_models([*results, *pooled])} == {
        "federated",
        "pooled",
        "personal",
    }
    found = collect_evidence([*results, *pooled], 100)
    outside = [c for c in found.comparisons if c.role == "external"]
    assert outside == [c for c in collect_evidence(plain, 100).comparisons if c.role == "external"]
    inside = {(c.model, c.site) for c in found.comparisons if c.role == "holdout"}
    assert {("personal", s) for s in ("all", "a", "b")} <= inside
    claims = [v.claim for v in found.verdicts if "personal" in v.claim and v.role == "holdout"]
    assert "Segmentation: personal and federated differ" in claims
    (matrix,) = (m for m in found.cross_site if m.metric == "dice")
    assert matrix.models == ("federated", "pooled", "personal:a", "personal:b")


# ---- the study


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"models": ["personal", "pooled"]}, 'fine-tunes the federated model; name "federated"'),
        ({"personal": {"epochs": 0}}, "personal.epochs: at least 1"),
        ({"personal": {"lr": 0.0}}, "personal.lr: above 0"),
        ({"personal": {"parts": "norm"}}, "expected one of"),
        (
            {"personal": {"parts": "norm_and_heads"}, "net": {"preset": "parent"}},
            "has no normalisation",
        ),
    ],
)
def test_faults_of_the_table(changes, why) -> None:
    with pytest.raises(StudyError, match=why):
        parse_study({**TINY, "models": ["federated", "personal"], **changes})


def test_the_digest_has_the_table_only_where_it_is_used() -> None:
    plain = parse_study(TINY).digest
    assert parse_study({**TINY, "personal": {"epochs": 9}}).digest == plain
    used = {**TINY, "models": ["federated", "personal"]}
    tables = ({}, {"epochs": 9}, {"lr": 1e-3}, {"parts": "heads"})
    assert len({plain, *(parse_study({**used, "personal": t}).digest for t in tables)}) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_run_shows_global_and_personal_by_hospital_and_writes_the_models(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(PRESETS, "small", THIN)
    hospitals = [PhantomHospital("one", 5), PhantomHospital("two", 5), PhantomHospital("three", 2)]
    path = write_study(tmp_path, hospitals, ("federated", "personal"))
    study = dataclasses.replace(load_study(path), personal=PersonalConfig(1, 1e-3, "heads"))
    out = tmp_path / "run"
    finished = run_study(study, out)
    with (out / "predictions.csv").open() as file:
        tested = [(r["model"], r["role"]) for r in csv.DictReader(file)]
    models = {"federated", "personal:one", "personal:two"}
    assert {t: tested.count(t) for t in tested} == {
        (m, role): 2 for m in models for role in ("external", "holdout")
    }
    rows = [r for r in finished.rows if (r.model, r.task, r.metric) == ("personal", "mask", "dice")]
    assert {(r.role, r.site, r.n) for r in rows} == {
        ("holdout", "all", 2), ("holdout", "one", 1), ("holdout", "two", 1)}  # fmt: skip
    page = (out / "report.html").read_text()
    assert '<section id="personal"' in page
    assert "from the federated one, 1 epochs, AdamW 0.001, trained: heads" in page
    folder = out / "models/seed-1/external"
    base, own = read_model(folder / "federated/model"), read_model(folder / "personal-one/model")
    assert own.recipe.base == base.id
    assert {part_of(n) for n, t in own.weights.items() if not torch.equal(t, base.weights[n])} == {
        "heads"
    }
    scores = (out / "scores.csv").read_bytes()
    assert json.loads((out / "scores.json").read_text())
    run_study(study, out)
    assert (out / "scores.csv").read_bytes() == scores


def test_at_the_same_time_personal_models_wait_for_the_federated_one(
    trained, monkeypatch, tmp_path
) -> None:
    """A worker opens the cases of its base too, whose run id it needs."""
    context, runs, _ = trained
    jobs = []

    class Pool:
        def __init__(self, *setup) -> None:
            jobs.append([])

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            pass

        def run(self, own, progress):
            jobs[-1] += own
            return ()

    monkeypatch.setattr(parallel, "WorkerPool", Pool)
    named = list(runs.values())
    parallel.train_in_parallel(context, named[::-1], RunOptions(tmp_path, 2), NO_PROGRESS)
    assert [[j.run.model for j in own] for own in jobs] == [
        ["federated"],
        ["personal:b", "personal:a"],
    ]
    assert {case.site for case, _ in jobs[1][0].cases} == {"a", "b"}
