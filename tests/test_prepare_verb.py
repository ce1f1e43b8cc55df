"""`gliofed prepare`: whole, with cases that fail, interrupted, and killed on the way."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import STRIPPED, write_hospital
from prepared_stores import (
    alive,
    children_of,
    entries,
    half_written,
    prepare_here,
    same,
    wait_until,
)
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.cli.screens.preparation import case_line
from gliofed.data.formats.bids import read_bids
from gliofed.data.phantom import HOSPITALS
from gliofed.data.store import PreparedStore
from gliofed.errors import GliofedError
from gliofed.preprocessing.workers import PreparationRequest, prepare_cases, processes_at_once
from gliofed.study import GridConfig, QualityConfig
from gliofed.types import PreparationMeasures, Sequence

GRID = GridConfig(spacing_mm=(1.0, 1.0, 1.0))
ROW = ("1", "0", "1", "2")
STUDY = """
name = "verb"
[data]
root = "."
train = ["north"]
external = ["south"]
[grid]
spacing_mm = [1.0, 1.0, 1.0]
[prepare]
brain = "stripped"
register = false
space = "scanner"
bias = false
[quality]
brain_litres = [0.0, 9.0]
alignment = 0.0
"""


@pytest.fixture
def north(tmp_path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    return write_hospital(tmp_path / "north", dict.fromkeys(("A", "B", "C"), ROW))


def command(north: Path, store: Path, *more: str) -> list[str]:
    study = north.parent / "study.toml"
    return [sys.executable, "-m", "gliofed.cli.main", "prepare", str(north), "--out", str(store),
            "--study", str(study), *more]  # fmt: skip


def start(*arguments: str, **more: object) -> subprocess.Popen:
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def invoke(north: Path, store: Path, *more: str):
    return CliRunner().invoke(app, command(north, store, *more)[3:])


def asked(tmp_path: Path) -> PreparationRequest:
    return PreparationRequest(
        GRID, STRIPPED, QualityConfig((0, 9), alignment=0), tmp_path / "store", tmp_path / "figures"
    )


@pytest.mark.slow
def test_a_data_set_is_prepared_then_kept_and_found_by_a_run(north, tmp_path) -> None:
    store = tmp_path / "store"
    first = invoke(north, store, "--json", str(tmp_path / "account.json"))
    assert first.exit_code == 0, first.output
    assert sum("  prepared  " in text for text in first.output.splitlines()) == 3
    assert "3 cases in" in first.output
    assert ": 0 reused, 3 prepared, 0 excluded, 0 failed" in first.output
    account = json.loads((tmp_path / "account.json").read_text())
    assert account["counts"] == {"failed": 0, "excluded": 0, "prepared": 3, "reused": 0}
    assert [(c["site"], c["case"]) for c in account["cases"]] == [("north", n) for n in "ABC"]
    assert all(c["brain_litres"] > 0 for c in account["cases"])
    figures = {p.name for p in (store / "figures/north").iterdir()}
    assert figures == {"index.html", *(c["figure"] for c in account["cases"])}
    stamps = {p: p.stat().st_mtime_ns for p in store.rglob("*.[np][pn][yg]")}
    again = invoke(north, store)
    assert again.exit_code == 0
    assert sum(text.endswith("  reused") for text in again.output.splitlines()) == 3
    assert stamps == {p: p.stat().st_mtime_ns for p in store.rglob("*.[np][pn][yg]")}
    shelf = PreparedStore(store)
    for prepared in prepare_here(read_bids(north, "anything"), GRID, STRIPPED, shelf):
        assert prepared.key in {c["key"] for c in account["cases"]}
    assert len(entries(store)) == 3


@pytest.mark.slow
def test_what_made_an_entry_stands_in_it_without_any_folder(north, tmp_path) -> None:
    invoke(north, tmp_path / "store")
    for entry in entries(tmp_path / "store"):
        text = (entry / "entry.json").read_text()
        assert str(tmp_path) not in text
        made = json.loads(text)["provenance"]
        assert set(made) == {
            "gliofed",
            "recipe",
            "steps",
            "grid",
            "libraries",
            "sources",
            "seconds",
        }
        assert made["libraries"]["numpy"] == np.__version__
        assert "deepbet" not in made["libraries"]  # it touched no voxel
        assert set(made["sources"]) == {"T1", "T1CE", "T2", "FLAIR", "mask"}
        assert made["sources"]["T2"]["file"].endswith("_T2w.nii.gz")
        assert len(made["sources"]["T2"]["sha256"]) == 64


@pytest.mark.slow
def test_a_failed_and_a_set_aside_case_do_not_stop_the_others(north, tmp_path) -> None:
    broken = north / "sub-B/anat/sub-B_T2w.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    half = north / "sub-C/anat"
    for path in (*half.iterdir(), *north.glob("derivatives/*/sub-C/anat/*_mask.nii.gz")):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([4.0, 4, 4, 1])), path)
    study = tmp_path / "study.toml"
    study.write_text(study.read_text().replace("[0.0, 9.0]", "[0.0, 0.05]"))
    done = invoke(north, tmp_path / "store")
    assert done.exit_code == 1
    assert "north/A  prepared" in done.output
    assert "north/B  failed: " in done.output
    assert str(broken) in done.output
    assert "north/C  excluded: the brain mask has" in done.output
    assert ": 0 reused, 1 prepared, 1 excluded, 1 failed" in done.output
    page = (tmp_path / "store/figures/north/index.html").read_text()
    assert page.index("north/B") < page.index("north/C") < page.index("north/A")
    study.write_text(study.read_text().replace("[0.0, 0.05]", "[0.0, 0.001]"))
    worse = invoke(north, tmp_path / "store")  # nothing is made again, but judged again
    assert worse.exit_code == 2
    assert ": 0 reused, 0 prepared, 2 excluded, 1 failed" in worse.output
    study.write_text(study.read_text().replace("[0.0, 0.001]", "[0.0, 9.0]"))
    better = invoke(north, tmp_path / "store")
    assert better.exit_code == 1
    assert ": 2 reused, 0 prepared, 0 excluded, 1 failed" in better.output


@pytest.mark.process
@pytest.mark.parametrize("kind", ["no set", "no format", "no study", "store in the way", "figures in the way"])  # fmt: skip
def test_what_stops_everything_is_one_line_and_status_2(north, tmp_path, kind) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments, words = {
        "no set": (command(tmp_path / "nowhere", tmp_path / "store"), "nowhere"),
        "no format": (command(north, tmp_path / "store", "--format", "ucsf"), "'ucsf_pdgm'"),
        "no study": (command(north, tmp_path / "store", "--study", "gone.toml"), "no such study"),
        "store in the way": (command(north, tmp_path / "file/store"), "cannot be written to"),
        "figures in the way": (command(north, tmp_path / "store", "--figures", str(tmp_path / "file")),
                               "cannot be written to"),
    }[kind]  # fmt: skip
    done = CliRunner().invoke(app, arguments[3:])
    assert done.exit_code == 2
    (text,) = [t for t in done.output.splitlines() if "Error" in t]
    assert words in text


@pytest.mark.slow
@pytest.mark.process
def test_a_full_disk_is_one_error_and_leaves_nothing_half(north, tmp_path) -> None:
    def little_room() -> None:  # the size of one file rather than of the disk: no test can fill one
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    plain = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # else it leaves cut files of bytecode
    done = start(*command(north, tmp_path / "store"), preexec_fn=little_room, env=plain)
    _, errors = done.communicate()
    assert done.returncode == 2, errors
    assert "Traceback" not in errors
    (text,) = errors.splitlines()
    assert text.startswith("UnwritableError")
    assert "File too large" in text
    assert not entries(tmp_path / "store")
    assert not half_written(tmp_path / "store")
    assert invoke(north, tmp_path / "store").exit_code == 0


def test_a_line_a_case_says_what_became_of_it(north) -> None:
    case = read_bids(north, "north")[0]
    measures = PreparationMeasures(1.434, 0.931, {Sequence.T1: 1.104, Sequence.T2: 1.2})
    sound = gliofed.CasePreparation(case, "prepared", (), 41.2, "key", measures, Path("x.png"))
    assert (
        case_line(sound)
        == "north/A  prepared  41 s  brain 1.43 L, overlap with MNI152 0.93, alignment 1.10"
    )
    assert case_line(dataclasses.replace(sound, status="reused")) == "north/A  reused"
    odd = dataclasses.replace(case, id="A\x1b[2J")
    aside = gliofed.CasePreparation(odd, "excluded", ("too small", "too far"), 1.0, "key", measures)
    assert case_line(aside) == "north/A\N{REPLACEMENT CHARACTER}[2J  excluded: too small; too far"


def stuck(north: Path, tmp_path: Path, name: str = "B"):
    """The hospital's cases, the scan of one being a pipe: whoever reads it waits for us."""
    pipe = tmp_path / "scan.nii.gz"
    os.mkfifo(pipe)
    cases = read_bids(north, "north")
    return pipe, [
        dataclasses.replace(c, images={**c.images, Sequence.T1: pipe}) if c.id == name else c
        for c in cases
    ]


def kill_readers(pipe: Path, how: signal.Signals, times: int) -> threading.Thread:
    """Kill, `times` over, the process that reads the pipe."""

    def reader() -> list[multiprocessing.Process]:
        found = []
        for process in multiprocessing.active_children():
            with contextlib.suppress(OSError):
                handles = [h.readlink() for h in Path(f"/proc/{process.pid}/fd").iterdir()]
                found += [process] if pipe in handles else []
        return found

    def work() -> None:
        for _ in range(times):
            handle = os.open(pipe, os.O_WRONLY)  # waits for the reader
            wait_until(reader)
            (process,) = reader()
            os.kill(process.pid, how)
            wait_until(lambda gone=process.pid: not alive(gone))
            os.close(handle)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    ("how", "times", "words"),
    [(signal.SIGKILL, 2, "killed twice"), (signal.SIGSEGV, 1, r"crashed (SIGSEGV)")],
)
def test_a_process_that_dies_takes_its_case_alone(north, tmp_path, how, times, words) -> None:
    pipe, cases = stuck(north, tmp_path)
    thread = kill_readers(pipe, how, times)
    heard: list[str] = []
    accounts = prepare_cases(cases, asked(tmp_path), 2, lambda a: heard.append(a.case.id))
    thread.join()
    assert sorted(heard) == ["A", "B", "C"]
    assert [a.status for a in accounts] == ["prepared", "failed", "prepared"]
    assert words in accounts[1].reasons[0]
    assert "north/B" in accounts[1].reasons[0]
    assert len(entries(tmp_path / "store")) == 2
    assert not multiprocessing.active_children()


@pytest.mark.slow
@linux
def test_a_process_killed_for_others_memory_is_tried_again_alone(north, tmp_path) -> None:
    pipe, cases = stuck(north, tmp_path)
    content = cases[0].images[Sequence.T1].read_bytes()
    thread = kill_readers(pipe, signal.SIGKILL, 1)

    def heal() -> None:  # the second reader finds a whole scan
        thread.join()
        pipe.unlink()
        pipe.write_bytes(content)

    healer = threading.Thread(target=heal)
    healer.start()
    accounts = prepare_cases(cases, asked(tmp_path), 2, lambda a: None)
    healer.join()
    assert [a.status for a in accounts] == ["prepared"] * 3


@pytest.mark.process
def test_no_process_to_be_had_is_an_error_of_its_own(north, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "multiprocessing.spawn.get_executable", lambda: os.fsencode(shutil.which("false"))
    )
    cases = read_bids(north, "north")
    with pytest.raises(GliofedError, match="can be started"):
        prepare_cases(cases, asked(tmp_path), 2, lambda a: None)


def test_an_empty_list_of_cases_needs_no_process(tmp_path) -> None:
    assert prepare_cases([], asked(tmp_path), 2, lambda a: None) == ()


def test_at_least_one_case_at_a_time(monkeypatch) -> None:
    from gliofed.preprocessing import workers

    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setattr(workers, "MEMORY_EACH", 1)
    assert processes_at_once() == 8
    monkeypatch.setattr(workers, "MEMORY_EACH", 2**62)
    assert processes_at_once() == 1


@pytest.mark.slow
@pytest.mark.process
@linux
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_half_entry_and_no_process(tmp_path, how) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    rows = {f"{n:02d}": ROW for n in range(16)}  # at the first entry most are still to come
    north, store = write_hospital(tmp_path / "north", rows), tmp_path / "store"
    process = start(*command(north, store, "--processes", "2"))
    wait_until(lambda: any(store.glob("*")) or process.poll() is not None)
    workers = children_of(process.pid)
    process.send_signal(how)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1].startswith("stopped; the same command resumes")
    assert len(workers) >= 2
    wait_until(lambda: not any(alive(p) for p in workers))
    assert not half_written(store)
    entries(store)
    assert invoke(north, store).exit_code == 0
    assert len(entries(store)) == 16


@pytest.mark.process
@linux
@pytest.mark.slow
def test_killed_again_and_again_the_store_ends_as_an_undisturbed_one(tmp_path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    rows = {f"{n:02d}": ROW for n in range(12)}
    north = write_hospital(tmp_path / "north", rows)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    kills, seen, rng = 0, set[str](), np.random.default_rng(0)
    while kills < 3:
        process = start(*command(north, cut, "--processes", "2"), start_new_session=True)
        while process.poll() is None:
            fresh = {p.name for p in cut.glob("*")} - seen if cut.exists() else set()
            if fresh:
                seen |= fresh
                time.sleep(rng.uniform(0, 0.02))
                workers = children_of(process.pid)
                if kills % 2:  # as a lost machine ends them all
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                kills += 1
                break
            time.sleep(0.001)
        process.communicate()
        if process.returncode == 0:
            break
        entries(cut)
        wait_until(lambda gone=workers: not any(alive(p) for p in gone))
    assert kills >= 3
    assert invoke(north, cut).exit_code == 0
    assert not half_written(cut)
    prepare_here(read_bids(north, "north"), GRID, STRIPPED, PreparedStore(whole))
    assert len(entries(whole)) == 12
    assert same(cut, whole)


@pytest.mark.slow
def test_the_phantom_hospitals_are_prepared(tmp_path, monkeypatch) -> None:
    """One of them, and the one whose patients it sees too; the others need not be drawn."""
    two = [h for h in HOSPITALS if h.name in ("harbour", "hillside")]
    monkeypatch.setattr("gliofed.experiments.studies.HOSPITALS", two)
    gliofed.phantom(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY.replace("[1.0, 1.0, 1.0]", "[4.5, 4.5, 4.5]"))
    found = gliofed.prepare(
        tmp_path / "hillside", tmp_path / "store", gliofed.PrepareOptions(tmp_path / "study.toml")
    )
    assert found.usable == len(found.accounts) > 10
    assert all(a.figure.is_file() for a in found.accounts)


@pytest.mark.slow
@pytest.mark.data
def test_real_scans_are_prepared_as_the_study_asks(real_data, tmp_path) -> None:
    study = Path(__file__).parents[1] / "studies/tcga-lgg.toml"
    site = tmp_path / "case-western"
    shutil.copytree(real_data / "tcga-lgg/case-western", site)
    table = site / "participants.tsv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join(rows[:3]) + "\n")
    named = {row.split("\t")[0] for row in rows[1:3]}
    for folder in [*site.glob("sub-*"), *site.glob("derivatives/*/sub-*")]:
        if folder.name not in named:
            shutil.rmtree(folder)
    found = gliofed.prepare(site, tmp_path / "store", gliofed.PrepareOptions(study, processes=2))
    assert [a.status for a in found.accounts] == ["prepared"] * 2, found.accounts
    assert all(0.8 < a.measures.brain_litres < 2.2 for a in found.accounts)
    assert all(20_000 < a.figure.stat().st_size < 500_000 for a in found.accounts)
