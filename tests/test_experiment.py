"""The whole experiment on a few phantom patients, whole and killed on the way."""

import csv
import dataclasses
import hashlib
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import torch
from prepared_stores import alive, children_of, wait_until
from small_study import write_study

import gliofed
from gliofed.data.phantom import PhantomHospital
from gliofed.errors import CheckpointError, GliofedError, QuorumError, StudyError
from gliofed.experiments.run import run_study
from gliofed.models.network import MultiTaskNet
from gliofed.reporting.checklists.statements import read_statements
from gliofed.runtime import device
from gliofed.runtime.files import alone_in
from gliofed.runtime.progress import NoProgress
from gliofed.study import load_study
from gliofed.types import SEQUENCES, Sequence

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study_file(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    hospitals = [
        PhantomHospital("one", 5),
        PhantomHospital("two", 2, {Sequence.T2: 1.0}, unmasked=1.0, never_known=("mgmt",)),
        PhantomHospital("three", 4),
    ]
    return write_study(root, hospitals, ("federated", "pooled", "alone"), epochs=3)


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    torch.set_num_threads(1)
    run_study(load_study(study_file), out)
    return out


@pytest.fixture(scope="module")
def shorter(study_file) -> Path:
    """The same study with two of its models."""
    path = study_file.parent / "shorter.toml"
    path.write_text(study_file.read_text().replace(', "alone"]', "]"))
    return path


def last_weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        str(folder.relative_to(out)): safetensors.torch.load_file(max(folder.glob("*.safetensors")))
        for folder in sorted(out.glob("models/*/*/*/rounds"))
    }


def same_as(finished: Path, out: Path, *models: str) -> None:
    """`out` has these models and no other, each with the bits and predictions of the whole run."""
    whole, own = last_weights(finished), last_weights(out)
    assert len(own) == len(models)
    for name, weights in own.items():
        assert weights.keys() == whole[name].keys()
        assert all(torch.equal(v, whole[name][k]) for k, v in weights.items()), name
    header, *lines = (finished / "predictions.csv").read_bytes().splitlines(keepends=True)
    place = header.split(b",").index(b"model")
    kept = [t for t in lines if t.split(b",")[place].decode() in models]
    assert {t.split(b",")[place].decode() for t in kept} == set(models)
    assert (out / "predictions.csv").read_bytes() == b"".join([header, *kept])


def test_every_model_is_trained_scored_and_shown(finished) -> None:
    assert len(last_weights(finished)) == 4  # federated, pooled, two alone
    with (finished / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {r["model"] for r in lines} == {"federated", "pooled", "alone:one", "alone:two"}
    assert sum(r["role"] == "external" for r in lines) == 4 * 4
    assert sum(r["role"] == "holdout" for r in lines) == 4 * 1  # one fifth of the five at "one"
    assert all(r["sequences"] and r["lesions_true"] for r in lines if r["dice"])
    rows = json.loads((finished / "scores.json").read_text())
    found = {
        r["model"]: r
        for r in rows
        if (r["site"], r["task"], r["metric"], r["role"]) == ("all", "grade", "brier", "external")
    }
    assert found["federated"]["n"] == 4
    assert found["federated"]["low"] < found["federated"]["value"] < found["federated"]["high"]
    drawn = next(r for r in rows if (r["model"], r["metric"]) == ("federated", "dice"))
    assert (drawn["n"], drawn["seeds"]) == (4, 1)
    assert 0 <= drawn["value"] <= 1
    page = (finished / "report.html").read_text()
    assert "not a medical device" in page.lower()
    assert "synthetic" in page.lower()


def test_every_table_and_figure_can_be_made_again_from_the_predictions(finished, tmp_path) -> None:
    """One command, equal bytes: `gliofed score RUN/predictions.csv --study RUN/study.toml`."""
    gliofed.score(
        [finished / "predictions.csv"], tmp_path, bootstrap=100, study=finished / "study.toml"
    )
    made = [p for name in ("evidence", "figures") for p in sorted((finished / name).iterdir())]
    assert len(made) > 30
    for path in [finished / "scores.csv", *made]:
        again = tmp_path / path.relative_to(finished)
        assert again.read_bytes() == path.read_bytes(), path.name


def test_the_run_tells_of_itself(finished, study_file) -> None:
    with (finished / "tripod-ai.csv").open() as file:
        tripod = {r["item"]: r for r in csv.DictReader(file)}
    with (finished / "claim.csv").open() as file:
        claim = {r["item"]: r for r in csv.DictReader(file)}
    assert (len(tripod), len(claim)) == (52, 44)
    rows = json.loads((finished / "scores.json").read_text())
    row = next(
        r for r in rows
        if (r["model"], r["role"], r["site"], r["task"], r["metric"])
        == ("federated", "external", "all", "grade", "brier")
    )  # fmt: skip
    assert (
        f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}), n = 4" in claim["33"]["text"]
    )
    assert "cases in training: 6, held out at training hospitals: 1," in tripod["12a"]["text"]
    assert "T2 in 2 of 11 cases" in tripod["11"]["text"]  # hospital two has none
    card = (finished / "model-card.md").read_text()
    last = max(finished.glob("models/*/*/federated/rounds/*.safetensors"))
    assert hashlib.sha256(last.read_bytes()).hexdigest() in card
    assert last.relative_to(finished).as_posix() in card
    assert load_study(study_file).digest in card


def run_with(words: Path, study_file: Path, out: Path) -> None:
    """`gliofed run` with the authors' statements."""
    options = gliofed.RunOptions(statements=read_statements(words))
    gliofed.run(study_file, out, options)


def test_statements_that_do_not_read_stop_a_run_before_it_begins(study_file, tmp_path) -> None:
    words = tmp_path / "words.toml"
    words.write_text('[claim]\n99 = "x"\n')
    with pytest.raises(StudyError, match="unknown item '99'"):
        run_with(words, study_file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_second_start_trains_nothing_again_and_lets_the_authors_speak(
    finished, study_file, tmp_path
) -> None:
    with alone_in(finished), pytest.raises(CheckpointError, match="another gliofed process"):
        run_study(load_study(study_file), finished)
    before, model = kept_of(finished), model_of(finished).id
    digest = load_study(finished / "study.toml").digest
    words = tmp_path / "words.toml"
    words.write_text('[claim]\n44 = "Nobody paid."\n')
    run_with(words, study_file, finished)
    assert "The authors: Nobody paid." in (finished / "report.html").read_text()
    assert "Nobody paid." in (finished / "claim.csv").read_text()
    assert load_study(finished / "study.toml").digest == digest
    assert before == kept_of(finished)
    assert model_of(finished).id == model


def kept_of(out: Path) -> dict[Path, int]:
    """What training left, and answers with sequences hidden, each with its time."""
    kept = [*out.glob("models/**/rounds/*.safetensors"), *out.glob("models/**/without-*.csv")]
    return {p: p.stat().st_mtime_ns for p in kept}


@pytest.mark.usefixtures("without_pictures")
def test_no_network_predicts_the_same_scan_twice(
    finished, study_file, tmp_path, monkeypatch
) -> None:
    """Scores, the agreement of seeds and the examples on the page share one prediction a case."""
    passes: Counter[tuple[int, bytes]] = Counter()
    trunk = MultiTaskNet.trunk

    def counted(net: MultiTaskNet, image: torch.Tensor, present: torch.Tensor):
        if not net.training:
            weights = float(sum(p.double().sum() for p in net.parameters()))
            passes[weights, hashlib.sha256(image.numpy().tobytes()).digest()] += 1
        return trunk(net, image, present)

    monkeypatch.setattr(MultiTaskNet, "trunk", counted)
    study = load_study(study_file)
    quick = dataclasses.replace(study.train, epochs=1)
    two = dataclasses.replace(study, models=("federated",), seeds=(1, 2), train=quick)
    options = gliofed.RunOptions(store=finished / "store")
    run = run_study(two, tmp_path, options=options)
    assert all(r.agreement is not None for r in run.results if r.role == "external")
    scans = {weights for weights, _ in passes}
    assert len(scans) == 2  # a network for each seed
    assert set(passes.values()) == {1}
    passes.clear()
    again = run_study(two, tmp_path, options=options)
    assert passes == {}  # a second start reads everything from the disk
    assert again.results == run.results
    for masks in tmp_path.glob("models/*/*/federated/masks-*.zip"):
        masks.unlink()
    assert run_study(two, tmp_path, options=options).results == run.results


def model_of(out: Path) -> gliofed.TrainedModel:
    (folder,) = out.glob("models/*/*/federated/model")
    return gliofed.read_model(folder)


def test_the_model_is_calibrated_for_missing_sequences(finished) -> None:
    model = model_of(finished)
    assert set(model.calibrations) == {0, 1, 2, 3}
    assert model.card
    with (finished / "missing-sequences.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert {r["model"] for r in rows} == {f"federated without {s}" for s in SEQUENCES}
    assert all(r["n"] == "4" for r in rows if r["metric"] == "dice")
    assert {"dice", "auc", "auc_mean"} == {r["metric"] for r in rows}
    assert any(p.name.startswith("without-") for p in kept_of(finished))


@pytest.mark.usefixtures("without_pictures")
def test_another_study_may_not_use_the_folder(finished, study_file, tmp_path) -> None:
    other = tmp_path / "other.toml"
    root = study_file.parent / "hospitals"
    other.write_text(
        study_file.read_text()
        .replace("epochs = 3", "epochs = 4")
        .replace('"hospitals"', json.dumps(str(root)))
    )
    with pytest.raises(CheckpointError, match="another study"):
        run_study(load_study(other), finished)


def committed(out: Path) -> int:
    """Rounds, and states of sites, that are on the disk."""
    return sum(len(list(out.glob(f"models/*/*/*/{w}"))) for w in ("rounds/round-*", "sites/*/*"))


def kill_after_a_commit(out: Path, *command: object) -> list[int]:
    """Start a run, and SIGKILL it once it has committed something; its children then."""
    before = committed(out)
    argv = [sys.executable, "-m", "gliofed.cli.main", "run", *map(str, command), "--out", str(out)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and committed(out) <= before:
        time.sleep(0.005)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    return children


@pytest.mark.process
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("without_pictures")
def test_killed_again_and_again_it_ends_with_the_same_bits_and_no_process_outlives_it(
    finished, shorter, tmp_path
) -> None:
    """Killed with two processes at work, then alone; each start goes on from the last commit."""
    store = ("--store", finished / "store")
    children = kill_after_a_commit(tmp_path, shorter, *store, "--processes", "2")
    assert len(children) >= 2
    wait_until(lambda: not any(alive(p) for p in children), seconds=10)
    kill_after_a_commit(tmp_path, shorter, *store)
    run_study(load_study(shorter), tmp_path, options=gliofed.RunOptions(store=finished / "store"))
    same_as(finished, tmp_path, "federated", "pooled")
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("without_pictures")
def test_changed_labels_are_not_taken_for_the_trained_ones(study_file, tmp_path) -> None:
    shutil.copytree(study_file.parent, tmp_path / "study")
    study = load_study(tmp_path / "study" / "small.toml")
    study = dataclasses.replace(
        study, models=("pooled",), train=dataclasses.replace(study.train, epochs=1)
    )
    out, store = tmp_path / "run", tmp_path / "store"

    def relabel(site: str) -> None:
        table = study.data.root / site / "participants.tsv"
        header, first, *rest = table.read_text().splitlines()
        cells = first.split("\t")
        place = header.split("\t").index("idh")
        cells[place] = "1" if cells[place] == "0" else "0"
        table.write_text("\n".join([header, "\t".join(cells), *rest]) + "\n")

    before = run_study(study, out, options=gliofed.RunOptions(store=store))
    relabel("three")  # tests only: the model stands, the test is done anew
    after = run_study(study, out, options=gliofed.RunOptions(store=store))
    assert [r.labels for r in before.results] != [r.labels for r in after.results]
    assert [r.probabilities for r in before.results] == [r.probabilities for r in after.results]
    relabel("one")
    with pytest.raises(CheckpointError, match="have changed since"):
        run_study(study, out, options=gliofed.RunOptions(store=store))


@pytest.mark.usefixtures("without_pictures")
def test_a_quorum_binds_the_federation_alone(finished, study_file, tmp_path) -> None:
    study = load_study(study_file)
    quick = dataclasses.replace(study.train, epochs=1)
    for quorum in (2, 3):
        rules = dataclasses.replace(study.federation, quorum=quorum)
        run = dataclasses.replace(study, train=quick, federation=rules)
        out = tmp_path / str(quorum)
        if quorum == 2:
            run_study(run, out, options=gliofed.RunOptions(store=finished / "store"))
            continue
        with pytest.raises(QuorumError, match="2 of at least 3"):
            run_study(run, out, options=gliofed.RunOptions(store=finished / "store"))


@pytest.mark.usefixtures("without_pictures")
def test_side_by_side_gives_the_same_bits_as_one_after_the_other(
    finished, study_file, tmp_path, monkeypatch
) -> None:
    """On a machine with two GPUs by name, each process is given one of them."""
    monkeypatch.setattr(device, "accelerators", lambda: ("4", "6"))
    seen: list[float] = []
    given: set[bytes] = set()

    class TestsSeen(NoProgress):
        def update(self, done: float, total: float, detail: str) -> None:
            for child in multiprocessing.active_children():
                variables = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
                given.update(v for v in variables if v.startswith(b"CUDA_VISIBLE_DEVICES="))
            if detail.endswith("tests"):  # told by a process that has trained its model
                seen.append(done / total)

    torch.set_num_threads(1)
    three = dataclasses.replace(load_study(study_file), models=("federated", "alone"))
    run_study(
        three, tmp_path, TestsSeen(), gliofed.RunOptions(store=finished / "store", processes=2)
    )  # one has to wait
    assert max(seen) == 1
    assert given == {b"CUDA_VISIBLE_DEVICES=4", b"CUDA_VISIBLE_DEVICES=6"}
    same_as(finished, tmp_path, "federated", "alone:one", "alone:two")
    seen.clear()  # all is there: a second start needs no process
    run_study(
        three, tmp_path, TestsSeen(), gliofed.RunOptions(store=finished / "store", processes=2)
    )
    assert seen == []


@pytest.mark.usefixtures("without_pictures")
def test_an_error_in_a_process_is_the_runs_own_and_a_killed_one_is_named(
    finished, study_file, tmp_path
) -> None:
    study = load_study(study_file)
    rules = dataclasses.replace(study.federation, quorum=3)
    strict = dataclasses.replace(study, models=("federated", "pooled"), federation=rules)
    with pytest.raises(QuorumError, match=r"^federated, external, seed 1: .*2 of at least 3"):
        run_study(
            strict,
            tmp_path / "a",
            options=gliofed.RunOptions(store=finished / "store", processes=2),
        )

    class Killer(NoProgress):
        def update(self, done: float, total: float, detail: str) -> None:
            for child in multiprocessing.active_children():
                child.kill()

    two = dataclasses.replace(study, models=("federated", "pooled"))
    with pytest.raises(GliofedError, match=r"killed twice.*--processes 1"):
        run_study(
            two, tmp_path / "b", Killer(), gliofed.RunOptions(store=finished / "store", processes=2)
        )
    assert not multiprocessing.active_children()
