"""The plan of a study: equal to what its run does, and every problem on both sides of its bound."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import THIN, TINY, write_hospital
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import Split
from gliofed.errors import DataError, StudyError
from gliofed.experiments import train_and_test
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.planning import problems, study_plan
from gliofed.experiments.planning.cases import fold_cases, site_cases
from gliofed.experiments.planning.estimates import estimate_run, makespan
from gliofed.experiments.planning.rehearsal import Rehearsal, rehearse_here
from gliofed.experiments.planning.study_plan import PlanOptions, StudyPlan, plan_study
from gliofed.experiments.planning.traffic import RecordingEngine, updates_of
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunContext, RunOptions
from gliofed.federated.local import LocalEngine
from gliofed.federated.schedule import Schedule
from gliofed.models.presets import PRESETS
from gliofed.runtime.device import this_machine
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import DataConfig, Study, parse_study, study_toml
from gliofed.types import Case, Labels

ROW = ("mutant", "intact", "methylated", "2")
OTHER = ("wildtype", "codeleted", "unmethylated", "4")
SITES = {"a": 7, "b": 5, "c": 3, "d": 4}
NOTE_BYTES = 200
"""By which the notes of two messages of one kind differ: digits of numbers."""
COMMIT_BYTES = 1500
"""The same for commits, whose history also has what happened in the rounds."""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory) -> Path:
    """Four hospitals below one root; their prepared cases come to lie in `store` beside them."""
    root = tmp_path_factory.mktemp("plan")
    for seed, (site, cases) in enumerate(SITES.items()):
        rows = {f"{site}{n}": (ROW, OTHER)[n % 2] for n in range(cases)}
        write_hospital(root / "hospitals" / site, rows, seed)
    return root


def study_of(root: Path, **changes: object) -> Study:
    """Three hospitals that train and one that tests. changes: tables and keys of the study."""
    data = {"root": str(root / "hospitals"), "train": ["a", "b", "c"], "external": ["d"]}
    train = {**TINY["train"], "epochs": 3, "batch": 4}
    return parse_study({**TINY, "data": {**data, "overlap_by": ["id"]}, "train": train, **changes})


@pytest.fixture
def here(monkeypatch, tmp_path) -> None:
    """Rehearsals in this process, of a network of few channels."""
    monkeypatch.setitem(PRESETS, "small", THIN)
    done: list[Rehearsal] = []

    def rehearse(job, processes, threads):
        done.append(rehearse_here(job, tmp_path / f"rehearsal-{len(done)}"))
        return done[-1]

    monkeypatch.setattr(study_plan, "rehearse", rehearse)


def planned(root: Path, study: Study, samples: int = 19) -> StudyPlan:
    return plan_study(study, PlanOptions(root / "run", root / "store", 1, samples), NO_PROGRESS)


@pytest.fixture
def engines(monkeypatch) -> list[RecordingEngine]:
    """The engines of runs from here on, which record their messages."""
    made: list[RecordingEngine] = []

    def recorded(*arguments):
        made.append(RecordingEngine(LocalEngine(*arguments)))
        return made[-1]

    monkeypatch.setattr(train_and_test, "LocalEngine", recorded)
    return made


def bytes_below(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern))


@pytest.mark.process
@pytest.mark.usefixtures("here", "without_pictures")
def test_cases_rounds_bytes_and_disk_are_those_of_the_run(hospitals, tmp_path, engines) -> None:
    study = study_of(hospitals, models=["federated", "pooled", "alone"], seeds=[1, 2])
    found = planned(hospitals, study)
    assert found.store.stored == found.store.cases == 19
    run = run_study(study, tmp_path / "run", NO_PROGRESS, RunOptions(hospitals / "store"))
    (split,) = run.splits[1]
    (fold,) = found.folds
    assert fold.train == {site: len(cases) for site, cases in split.train.items()}
    assert fold.holdout == {site: len(cases) for site, cases in split.holdout.items()}
    assert fold.external == len(split.external) == 4
    federated = [t.state for t in run.trained if t.run.model == "federated"]
    assert found.traffic is not None
    assert found.traffic.here.rounds == sum(state.rounds for state in federated) == 2 * 12
    kinds = {own.kind: own for own in found.networks}
    assert {kind: own.networks for kind, own in kinds.items()} == {
        "federated": 2, "pooled": 2, "alone": 6,
    }  # fmt: skip
    pooled = [t.state for t in run.trained if t.run.model == "pooled"]
    steps = sum(state.rounds * state.schedule.batches for state in pooled)
    assert kinds["pooled"].steps == steps
    sent = [e for engine in engines[1:] for e in engine.exchanges]  # the first is the rehearsal's
    compare_traffic(found, sent)
    assert found.store.bytes == bytes_below(hospitals / "store", "*/*.*")
    files = list((tmp_path / "run/models").glob("**/rounds/round-*"))
    assert abs(found.disk.rounds - sum(f.stat().st_size for f in files)) < COMMIT_BYTES * len(files)
    exported = bytes_below(tmp_path / "run/models", "**/weights.safetensors")
    assert 0 < exported - found.disk.models < 2 * 10_000  # the headers of two files


def compare_traffic(found: StudyPlan, sent: list) -> None:
    here = found.traffic.here
    used = [e for e in sent if not e.empty]
    assert here.updates == sum(e.kind == "train" for e in used)
    assert abs(here.down - sum(e.request for e in used)) < NOTE_BYTES * len(used)
    assert abs(here.up - sum(e.response for e in sent)) < NOTE_BYTES * len(sent)


@pytest.mark.process
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "federation",
    [
        {"compress": "int8", "commit": 2},
        {"privacy": "secure-sum"},
        {"method": "fedavg", "local_epochs": 2},
        {"method": "scaffold", "local_steps": 2},
        {"aggregation": "median"},
    ],
    ids=lambda value: "-".join(map(str, value.values())),
)
def test_messages_and_commits_of_every_method_are_those_of_the_run(
    hospitals, tmp_path, engines, federation
) -> None:
    study = study_of(hospitals, models=["federated"], federation=federation)
    found = planned(hospitals, study)
    trained = train_federated(study, hospitals / "store", tmp_path / "run")
    assert found.traffic.here.rounds == trained.state.rounds
    compare_traffic(found, engines[-1].exchanges)
    kept = [*trained.run.folder(tmp_path / "run").glob("rounds/round-*"),
            *trained.run.folder(tmp_path / "run").glob("sites/*/after-*")]  # fmt: skip
    assert abs(found.disk.rounds - sum(f.stat().st_size for f in kept)) < COMMIT_BYTES * len(kept)


def train_federated(study: Study, store: Path, out: Path):
    """The federated model of a study whose cases are in the store, without a test."""
    cases = gliofed.experiments.cases.prepare_study_cases(
        study, read_sites(study.data), store, NO_PROGRESS
    )
    splits = {1: study_plan.make_splits(study.data, cases.sites, 1)}
    (run,) = study_plan.plan_model_runs(study, splits)
    context = RunContext(study, out, this_machine(), cases.prepared)
    return train_and_test.train_model(context, run, NO_PROGRESS)


@pytest.mark.process
@pytest.mark.usefixtures("here")
def test_a_store_is_estimated_from_a_few_cases(hospitals, tmp_path) -> None:
    study = study_of(hospitals, models=["federated"])
    found = plan_study(study, PlanOptions(tmp_path, samples=4), NO_PROGRESS).store
    whole = planned(hospitals, study).store
    assert (found.stored, found.samples, found.cases) == (4, 4, 19)
    assert 0.8 < found.bytes / whole.bytes < 1.25
    assert found.missing_bytes == found.bytes - bytes_below(tmp_path / "store", "*/*.*")
    assert found.seconds > 0
    assert (whole.missing_bytes, whole.hours) == (0, 0)
    again = plan_study(study, PlanOptions(tmp_path, samples=4), NO_PROGRESS).store
    assert again.stored == 8, "cases that the store lacks come first"


@pytest.mark.process
@pytest.mark.usefixtures("here")
def test_a_sample_much_smaller_than_a_brain_is_a_problem(hospitals, tmp_path) -> None:
    """Brains of 16 voxels of 2 mm are 32 of 1 mm."""
    for spacing, stated in ((1, True), (2, False)):
        grid = {"patch": [16, 16, 16], "spacing_mm": [spacing] * 3}
        study = study_of(hospitals, models=["pooled"], grid=grid)
        found = plan_study(study, PlanOptions(tmp_path, samples=1), NO_PROGRESS)
        texts = [text for text in found.problems if "of the median brain" in text]
        assert len(texts) == stated


@pytest.mark.process
@pytest.mark.usefixtures("here")
def test_what_the_run_would_refuse_is_refused(hospitals, tmp_path) -> None:
    (broken := tmp_path / "hospitals/a").mkdir(parents=True)
    with pytest.raises(DataError, match=str(broken)):
        planned(tmp_path, study_of(tmp_path))
    federation = {"continues": "0" * 24}
    with pytest.raises(StudyError, match="gliofed run trains"):
        planned(hospitals, study_of(hospitals, federation=federation))


def command(hospitals: Path, tmp_path: Path, *options: str):
    path = tmp_path / "small.toml"
    path.write_text(study_toml(study_of(hospitals, models=["federated"])))
    out = ["--out", str(tmp_path / "run"), "--store", str(hospitals / "store")]
    return CliRunner().invoke(app, ["plan", str(path), *out, "--processes", "2", *options])


@pytest.mark.process
@pytest.mark.usefixtures("here")
def test_the_command_states_problems_and_ends_with_1(hospitals, tmp_path) -> None:
    shown = command(hospitals, tmp_path)
    assert shown.exit_code == 1, shown.output
    lines = shown.stdout.splitlines()
    wanted = (
        "Rounds: 12, 1 federated model",
        "Bytes: ",
        "Memory: ",
        "Disk, free: ",
        "Time, networks: ",
    )
    for start in wanted:
        assert any(line.startswith(start) for line in lines), start
    assert (
        "Problem: c: 3 training cases; a hospital's default policy takes part with 10"
        in shown.stdout
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.process
def test_the_command_prints_json_of_what_it_measured_in_processes(hospitals, tmp_path) -> None:
    plain = json.loads(command(hospitals, tmp_path, "--json").stdout)
    assert plain["traffic"]["here"]["rounds"] == 12
    assert plain["memory"]["process"] > 100_000_000
    assert plain["step"] > 0


def test_a_study_that_cannot_be_read_ends_with_2(tmp_path) -> None:
    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "none.toml")])
    assert shown.exit_code == 2
    assert "none.toml" in shown.output


def case(site: str, number: int, labels: dict[str, str] | None = None, mask: bool = True) -> Case:
    drawn = Path("mask.nii.gz") if mask else None
    return Case(str(number), site, f"{site}{number}", {}, drawn, Labels(labels))


def fold_of(train: list[Case], external: list[Case]):
    return fold_cases(Split("f", {"a": tuple(train)}, {"a": ()}, tuple(external), ()))


@pytest.mark.parametrize(
    ("train", "external", "wanted"),
    [
        (("mutant", "wildtype"), ("mutant", "wildtype"), ""),
        (("mutant", "wildtype"), (), ""),
        (("mutant", "mutant"), ("mutant", "wildtype"), "IDH mutation is not trained, its training cases are wildtype 0, mutant 2"),
        (("mutant", "wildtype"), ("wildtype",), "IDH mutation has one class in the external test, wildtype 1, mutant 0"),
    ],
)  # fmt: skip
def test_a_marker_of_one_class_is_a_problem(tiny_study, train, external, wanted) -> None:
    weights = {"idh": 1.0, "codel_1p19q": 0.0, "mgmt": 0.0, "grade": 0.0}
    study = dataclasses.replace(
        tiny_study, loss=dataclasses.replace(tiny_study.loss, markers=weights)
    )
    fold = fold_of(*(
        [case("a", n, {"idh": value}) for n, value in enumerate(values)]
        for values in (train, external)
    ))  # fmt: skip
    found = list(problems.label_problems(study, [fold]))
    assert len(found) == bool(wanted)
    assert all(wanted in text for text in found)


@pytest.mark.parametrize(("cases", "stated"), [(9, True), (10, False)])
def test_few_training_and_few_external_cases_are_problems(cases, stated) -> None:
    fold = fold_of([case("a", n) for n in range(cases)], [case("b", n) for n in range(cases)])
    found = list(problems.site_problems([], [fold]))
    assert len(found) == 2 * stated
    assert not stated or ("a: 9 training cases" in found[0] and "9 external cases" in found[1])


def test_cases_that_teach_and_test_nothing_are_a_problem() -> None:
    bare, masked, labelled = (
        case("a", 1, mask=False),
        case("a", 2),
        case("a", 3, {"idh": "mutant"}, False),
    )
    counted = site_cases("a", [bare, masked, labelled])
    (text,) = problems.site_problems([counted], [])
    assert text.startswith("a: 1 of 3 cases have neither a mask nor a known marker")
    assert not list(problems.site_problems([site_cases("a", [masked, labelled])], []))


def test_disk_and_memory_are_problems_above_what_there_is() -> None:
    assert problems.disk_problem(1000, 1000, Path("/x")) == ""
    assert "1.00 kB are needed, and 999 bytes are free at /x" in problems.disk_problem(
        1000, 999, Path("/x")
    )
    assert problems.memory_problem(4000, 4000, 4) == problems.memory_problem(4000, None, 4) == ""
    assert problems.memory_problem(4000, 3999, 4).endswith("give --processes 3")
    assert "smaller train.batch" in problems.memory_problem(4000, 3999, 1)


def test_folders_of_hospitals_that_the_study_does_not_name_are_noted(hospitals, tiny_study) -> None:
    data = DataConfig(root=hospitals / "hospitals", train=("a", "b"), external=("d",))
    study = dataclasses.replace(tiny_study, data=data)
    (text,) = problems.notes(study, [], [])
    assert "in no role: c;" in text
    whole = dataclasses.replace(study, data=dataclasses.replace(data, train=("a", "b", "c")))
    assert not list(problems.notes(whole, [], []))


@pytest.mark.parametrize(
    ("seconds", "processes", "wanted"),
    [([3, 1, 1, 1], 2, 3), ([1, 1, 3], 2, 4), ([3, 1], 1, 4), ([], 2, 0)],
)  # fmt: skip
def test_models_at_a_time_end_when_the_last_one_does(seconds, processes, wanted) -> None:
    assert makespan(seconds, processes) == wanted


def run_of(model: str, sites: dict[str, int]) -> ModelRun:
    cases = {s: tuple(case(s, n) for n in range(count)) for s, count in sites.items()}
    return ModelRun(model, 1, Split("external", cases, {}, (case("x", 1),), ()), cases)


MEASURED = Rehearsal((9.0, 8.0, 8.0), (1.0,), (12.0,), (5.0,), (), 0, 0, 0, 0, 0)


def test_seconds_are_those_of_the_steps(tiny_study) -> None:
    """Steps on 8 cases take 8 s and on one case 1 s, so on n cases n s."""
    train = dataclasses.replace(tiny_study.train, batch=8, epochs=2)
    study = dataclasses.replace(tiny_study, train=train)
    alone = estimate_run(study, run_of("alone:a", {"a": 12}), MEASURED)
    assert (alone.steps, alone.training_seconds, alone.test_seconds) == (4, 24.0, 5.0)
    federated = estimate_run(study, run_of("federated", {"a": 12, "b": 4}), MEASURED)
    assert (federated.steps, federated.training_seconds) == (4, 48.0)


def test_a_round_of_local_steps_has_what_is_beyond_them(tiny_study) -> None:
    """Sites of 12 and 4 cases take 2 steps on 6 and 2 on 2 cases; one step each leaves 4 s of 12."""
    federation = dataclasses.replace(tiny_study.federation, method="fedavg")
    train = dataclasses.replace(tiny_study.train, batch=8, epochs=2)
    study = dataclasses.replace(tiny_study, train=train, federation=federation)
    found = estimate_run(study, run_of("federated", {"a": 12, "b": 4}), MEASURED)
    assert (found.steps, found.training_seconds) == (2, 2 * (2 * 6 + 2 * 2 + 4))


def test_a_site_sends_in_fewer_rounds_where_its_policy_wants_more_cases(tiny_study) -> None:
    run, schedule = run_of("federated", {"a": 8, "b": 2}), Schedule(5, 10, 20)
    assert updates_of(tiny_study, run, schedule) == 2 * (5 + 2)
    assert updates_of(tiny_study, run, schedule, least=4) == 2 * (2 + 1)
    secret = dataclasses.replace(tiny_study.federation, privacy="secure-sum")
    assert updates_of(dataclasses.replace(tiny_study, federation=secret), run, schedule) == 20
