"""The pool of worker processes: results, progress, crashes, retries, and nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from prepared_stores import alive
from recorded_progress import RecordedProgress

from gliofed.errors import DataError, GliofedError
from gliofed.runtime import workers
from gliofed.runtime.progress import Progress
from gliofed.runtime.workers import ProcessCrash, WorkerPool

pytestmark = pytest.mark.process

Job = tuple[str, int]


def do(job: Job, progress: Progress, mark: Path) -> str:
    kind, number = job
    if kind == "exit":
        os._exit(number)
    if kind == "signal":
        os.kill(os.getpid(), number)
    if kind == "killed once" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "refused":
        raise DataError("not this one")
    if kind == "place":
        time.sleep(0.2)  # so that no process takes two of two jobs
        return os.environ["PLACE"]
    if kind == "threads":
        return os.environ["OMP_NUM_THREADS"] + os.environ["MKL_NUM_THREADS"]
    progress.update(number, 9, "at work")
    progress.note(f"note {number}")
    return f"{number}:{os.getpid()}"


def set_up(mark: Path) -> Callable[[Job, Progress], str]:
    return partial(do, mark=mark)


def outcomes(pool: WorkerPool[Job, str], *jobs: Job) -> dict[Job, str | ProcessCrash]:
    return dict(pool.run(jobs))


@pytest.fixture
def pool(tmp_path) -> WorkerPool[Job, str]:
    return WorkerPool(partial(set_up, tmp_path / "mark"), 2, threads=3)


def test_results_and_progress_come_back_and_processes_stay_until_the_block_ends(pool) -> None:
    seen: dict[Job, RecordedProgress] = {}
    jobs = [("plain", n) for n in range(5)]
    with pool:
        results = dict(pool.run(jobs, lambda job: seen.setdefault(job, RecordedProgress())))
        assert [results[job].partition(":")[0] for job in jobs] == list("01234")
        assert [seen[job].updates for job in jobs] == [[(n, 9, "at work")] for n in range(5)]
        assert [seen[job].notes for job in jobs] == [[f"note {n}"] for n in range(5)]
        first = {int(r.partition(":")[2]) for r in results.values()}
        assert 1 <= len(first) <= 2
        (again,) = outcomes(pool, ("plain", 7)).values()
        assert int(again.partition(":")[2]) in first
    assert not any(map(alive, first))
    assert not multiprocessing.active_children()


def test_a_process_started_before_the_first_job_takes_it(pool) -> None:
    with pool:
        pool.start()
        pool.start()
        (early,) = multiprocessing.active_children()
        (result,) = outcomes(pool, ("plain", 1)).values()
        assert result == f"1:{early.pid}"
    assert not multiprocessing.active_children()


def test_a_crash_costs_its_own_job_and_says_how_it_ended(pool) -> None:
    with pool:
        found = outcomes(pool, ("plain", 1), ("exit", 3), ("signal", signal.SIGSEGV), ("plain", 2))
    assert found["exit", 3] == ProcessCrash(3)
    assert found["exit", 3].reason == "its process crashed (status 3)"
    assert found["signal", signal.SIGSEGV].reason == "its process crashed (SIGSEGV)"
    assert [found["plain", n].partition(":")[0] for n in (1, 2)] == ["1", "2"]


def test_a_killed_job_is_tried_again_alone(pool) -> None:
    with pool:
        found = outcomes(pool, ("killed once", 1), ("signal", signal.SIGKILL), ("plain", 2))
    assert found["killed once", 1].startswith("1:")
    assert "killed twice" in found["signal", signal.SIGKILL].reason
    assert found["plain", 2].startswith("2:")


def test_an_error_of_gliofed_is_raised_here(pool) -> None:
    with pool, pytest.raises(DataError, match="not this one"):
        outcomes(pool, ("refused", 1))
    assert not multiprocessing.active_children()


def test_threads_are_set_but_for_what_the_user_has_set(pool, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with pool:
        assert outcomes(pool, ("threads", 0)) == {("threads", 0): "73"}
    assert "MKL_NUM_THREADS" not in os.environ


def test_each_process_at_a_time_has_its_own_variables_and_so_has_its_replacement(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PLACE", "the user's")
    places = [{"PLACE": "first"}, {"PLACE": "second"}]
    with WorkerPool(partial(set_up, tmp_path / "mark"), 2, 3, places) as pool:
        assert set(outcomes(pool, ("place", 1), ("place", 2)).values()) == {"first", "second"}
        assert outcomes(pool, ("exit", 3)) == {("exit", 3): ProcessCrash(3)}
        assert set(outcomes(pool, ("place", 1), ("place", 2)).values()) == {"first", "second"}
    assert os.environ["PLACE"] == "the user's"


def test_no_process_to_be_had_is_an_error_of_its_own(pool, monkeypatch) -> None:
    monkeypatch.setattr(workers, "_work", os._exit)  # ends before it is set up
    with pool, pytest.raises(GliofedError, match="no worker process can be started"):
        outcomes(pool, ("plain", 1))


def test_a_script_needs_no_guard_of_its_own(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from test_workers import set_up\n"
        "from gliofed.runtime.workers import WorkerPool\n"
        "with WorkerPool(partial(set_up, Path('mark')), 1, 1) as pool:\n"
        "    print(*[r.partition(':')[0] for _, r in pool.run([('plain', 4)])])\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.stdout == "4\n"
