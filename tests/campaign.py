"""The long form of the fault tests: `python tests/campaign.py`, as root, some forty minutes.

Each row is a fault, what is expected of it (docs/reference/faults.md), and what was seen. The
table is printed as it grows, and written to --out at the end. Status 1 where a row is not as
expected.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

import torch
from drill import (
    DEADLINE,
    PATIENCE,
    SITES,
    TRAIN,
    Drill,
    Proxy,
    cut_off,
    drill,
    same_weights,
    small_disk,
    undisturbed,
)

from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.kit import open_kit
from gliofed.federated.flare.executor import REQUEST_FILE

SERVER_TIMES = 5
COMMIT = 3
"""Rounds between two commits of the synchronous run."""


@dataclasses.dataclass
class Row:
    fault: str
    times: int
    expected: str
    seen: str
    good: bool


class Book:
    """The rows so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, fault: str, times: int, expected: str, seen: str, good: bool) -> None:
        self.rows.append(Row(fault, times, expected, seen, good))
        print(
            f"{'as expected' if good else 'NOT AS EXPECTED'}: {fault} x {times}: {seen}", flush=True
        )

    def table(self) -> str:
        lines = ["| Fault | Times | Expected | Seen | |", "|---|---|---|---|---|"]
        lines += [f"| {r.fault} | {r.times} | {r.expected} | {r.seen} | "
                  f"{'as expected' if r.good else '**not as expected**'} |" for r in self.rows]  # fmt: skip
        return "\n".join(lines) + "\n"


def started(d: Drill) -> None:
    d.start(SERVER, *SITES, LEAD)
    d.wait(lambda: d.commits >= 1, "the first round")


def rounds_now(d: Drill) -> int:
    state = d.committed
    return state.rounds if state is not None else 0


# the server, at six phases


def in_counting(d: Drill) -> bool:
    last = d.last("north")
    return last is not None and last.event == "request-received" and "round" not in last.fields


def in_training(d: Drill) -> bool:
    last = d.last("north")
    return last is not None and last.event == "request-received" and "round" in last.fields


def answers_arrive(d: Drill) -> bool:
    """An answer as large as a model is coming in."""
    spool = d.work(SERVER) / "spool"
    try:
        return any(p.stat().st_size > 1e6 for p in spool.iterdir())
    except OSError:
        return False


def in_commit(d: Drill) -> bool:
    return any((d.work(SERVER) / "rounds").glob(".round-*.part"))


def segment_starts(d: Drill) -> bool:
    last = d.last(SERVER)
    return last is not None and last.event == "job-started"


def in_test(d: Drill) -> bool:
    return d.server_state == "testing"


SERVER_PHASES: dict[str, Callable[[Drill], bool]] = {
    "sites train": in_training,
    "a segment starts": segment_starts,
    "answers arrive": answers_arrive,
    "sites count": in_counting,
    "a round is committed": in_commit,
}


def server_killed(book: Book, root: Path) -> None:
    """Kill the server five times at each phase in one run; then compare with one process.

    The run is synchronous: most kills lose rounds that were made since the last commit.
    """
    lost: dict[str, int] = dict.fromkeys([*SERVER_PHASES, "the model is tested"], 0)
    back: dict[str, list[float]] = {p: [] for p in lost}
    torch.set_num_threads(1)
    rounds = 2 * SERVER_TIMES * len(SERVER_PHASES) * COMMIT
    federation = {"method": "synchronous", "commit": COMMIT}
    with drill(root / "server", rounds // 8 + 1, deadline=120.0, federation=federation) as d:
        d.segment = 2 * COMMIT  # (15 cases in batches of 2: a pass has 8 rounds)
        started(d)
        for time_ in range(SERVER_TIMES):
            for phase, now in SERVER_PHASES.items():
                d.wait(lambda now=now: now(d), f"server: {phase}", poll=0.001)
                lost[phase] += kill_server(d, time_, back[phase], phase)
        for time_ in range(SERVER_TIMES):
            d.wait(lambda: in_test(d), "the test", poll=0.001)
            time.sleep(time_)
            lost["the model is tested"] += kill_server(
                d, time_, back["the model is tested"], "test"
            )
        end = d.over()
        state, wrong = d.committed, d.is_sound()
        everyone = all(set(p.answered) == set(TRAIN) for p in end.points)
    orphans = d.processes()
    same = state is not None and same_weights(state, undisturbed(d, root / "near")[0])
    for phase, count in lost.items():
        seen = (f"{count} rounds lost; next round or test after {median(back[phase]):.0f} s; "
                f"{'same weights as undisturbed' if same else 'other weights'}; {end.state}")  # fmt: skip
        good = not count and same and everyone and end.state == "completed" and not wrong
        book.add(f"server SIGKILL while {phase}", SERVER_TIMES,
                 "no committed round lost, same weights, completed", seen, good)  # fmt: skip
    book.add("after all of them", 1, "0 orphan processes, sound logs and checkpoints",
             f"{len(orphans)} orphans; {wrong or 'all sound'}", not orphans and not wrong)  # fmt: skip


def kill_server(d: Drill, time_: int, back: list[float], phase: str) -> int:
    """Kill, start anew, and wait until it works again; committed rounds that were lost."""
    before = rounds_now(d)
    if time_ % 2:
        d.end(SERVER, signal.SIGKILL)
    else:
        d.kill_all(SERVER)
    after, heard = rounds_now(d), len(d.log(SERVER))
    d.start(SERVER)

    def goes_on() -> bool:
        begun = any(e.event == "job-started" for e in d.log(SERVER)[heard:])
        tests = in_test(d) or d.server_state == "completed"  # a test may take less than a poll
        return rounds_now(d) > after or (begun and tests)

    back.append(d.wait(goes_on, f"it goes on after {phase}"))
    print(f"  {phase}: killed after round {before}, {back[-1]:.0f} s", flush=True)
    return max(0, before - after)


# a site, at eight phases


def site_killed(book: Book, root: Path) -> None:
    with drill(root / "site", 300) as d:  # more rounds than all phases take
        d.start(SERVER, *SITES)
        d.wait(lambda: "Successfully registered" in d.said("north"), "north is registered")
        d.end("north", signal.SIGKILL)
        d.start(LEAD)
        time.sleep(3)
        site_back(book, d, "connected, before the study", 0)
        for phase, now in SITE_PHASES.items():
            if phase == "its segment starts":  # of which there is one after an order
                d.end("west")
                d.start("west")
            d.wait(lambda now=now: now(d), f"north: {phase}", poll=0.001)
            before = rounds_now(d)
            d.end("north", signal.SIGKILL)
            d.wait(lambda b=before: rounds_now(d) > b, f"a round after north died while {phase}")
            site_back(book, d, phase, before)
        job_killed(book, d)
        wrong = d.is_sound()
    assert not wrong, wrong


def site_killed_in_test(book: Book, root: Path) -> None:
    with drill(root / "test", 2) as d:
        started(d)
        d.wait(lambda: in_test(d), "the test", poll=0.001)
        d.end("north", signal.SIGKILL)
        end = d.over()
        wrong = d.is_sound()
        named = "north" in end.failures or any(r.site == "north" for r in end.rows)
    seen = f"{end.state}; {'north named' if named else 'north not named'}"
    book.add("site SIGKILL while it tests", 1, "completed, the site named in the table", seen,
             end.state == "completed" and named)  # fmt: skip
    orphans = d.processes()
    book.add("after all of them", 1, "0 orphan processes, sound logs and checkpoints",
             f"{len(orphans)} orphans; {wrong or 'all sound'}", not orphans and not wrong)  # fmt: skip


def site_back(book: Book, d: Drill, phase: str, before: int) -> None:
    """Start north anew; it must answer in a later round."""
    d.start("north")
    at = rounds_now(d)

    def answers() -> bool:
        state = d.committed
        return state is not None and any("north" in p.answered for p in state.history[at:])

    seconds = d.wait(answers, f"north is back after it died while {phase}")
    state = d.committed
    assert state is not None
    without = [p for p in state.history[before:] if "north" not in p.answered]
    named = all("north" in p.refused for p in without)
    slow = max(p.seconds for p in state.history)
    seen = f"{len(without)} rounds without it, named in each; back after {seconds:.0f} s"
    book.add(f"site SIGKILL while {phase}", 1, "the round goes on, the site is named, and rejoins",
             seen if named else f"{seen}: not named", named and slow <= DEADLINE + 10)  # fmt: skip


SITE_PHASES: dict[str, Callable[[Drill], bool]] = {
    "it trains": in_training,
    "its segment starts": lambda d: bool(d.job_processes("north")) and segment_starts(d),
    "it counts": in_counting,
    "weights arrive": lambda d: (d.work("north") / REQUEST_FILE).exists() and not in_training(d),
    "its answer is fetched": lambda d: (e := d.last("north")) is not None
    and e.event == "response-sent" and "round" in e.fields,
    "others still train": lambda d: (e := d.last("north")) is not None
    and e.event == "response-sent" and in_training(d) is False,
}  # fmt: skip


def job_killed(book: Book, d: Drill) -> None:
    """The site's process for the segment alone: FLARE ends the whole job."""
    d.wait(lambda: in_training(d), "north trains", poll=0.001)
    before = rounds_now(d)
    for pid in d.job_processes("north"):
        os.kill(pid, signal.SIGKILL)
    seconds = d.wait(lambda: rounds_now(d) > before, "a round after north's job process died")
    book.add("a site's training process alone SIGKILL", 1, "the round is repeated or goes on",
             f"next round committed after {seconds:.0f} s", seconds < DEADLINE + 120)  # fmt: skip


# a site that stands still, a link that is cut


def site_stopped(book: Book, root: Path) -> None:
    with drill(root / "stopped", 40) as d:
        started(d)
        for seconds, expected in ((8.0, True), (DEADLINE + 15, False)):
            d.wait(lambda: in_training(d), "north trains", poll=0.001)
            at = rounds_now(d)
            d.signal_all("north", signal.SIGSTOP)
            time.sleep(seconds)
            d.signal_all("north", signal.SIGCONT)
            d.wait(lambda at=at: rounds_now(d) > at + 1, "rounds go on")
            state = d.committed
            assert state is not None
            with_it = "north" in state.history[at].answered
            back = d.wait(lambda at=at: any("north" in p.answered for p in d.committed.history[at + 1:]),
                          "north answers again")  # fmt: skip
            took = state.history[at].seconds
            seen = (f"round took {took:.0f} s {'with' if with_it else 'without'} it; answers again "
                    f"after {back:.0f} s")  # fmt: skip
            book.add(f"site stopped for {seconds:.0f} s of a deadline of {DEADLINE:.0f} s", 1,
                     "waited for" if expected else "the round goes on without it, and it comes back",
                     seen, with_it == expected and took <= DEADLINE + 10)  # fmt: skip
        wrong = d.is_sound()
    assert not wrong, wrong


def link_cut(book: Book, root: Path) -> None:
    """North alone in a network namespace, whose link goes down for 10 s."""
    with cut_off("10.77.7.1", "10.77.7.2") as link, drill(root / "link", 40, host="10.77.7.1") as d:
        d.start(SERVER, "east", "west", "outer", LEAD)
        d.start_in(link.namespace, "north")
        d.wait(lambda: d.commits >= 1, "the first round")
        for phase, now in (("it trains", in_training), ("its answer is fetched", answers_arrive)):
            d.wait(lambda now=now: now(d), phase, poll=0.001)
            at = rounds_now(d)
            link.down()
            time.sleep(10)
            link.up()
            d.wait(lambda at=at: rounds_now(d) > at, "the round goes on")
            back = d.wait(lambda at=at: any("north" in p.answered for p in d.committed.history[at:]),
                          "north answers again")  # fmt: skip
            state = d.committed
            assert state is not None
            took = max(p.seconds for p in state.history)
            without = sum("north" not in p.answered for p in state.history[at:])
            book.add(f"link cut for 10 s while {phase}", 1, "waited for, or named and back",
                     f"{without} rounds without it; answers again after {back:.0f} s",
                     took <= DEADLINE + 10)  # fmt: skip


def upload_reset(book: Book, root: Path) -> None:
    """All sites through a proxy that resets their connections in the middle of an answer."""
    with drill(root / "proxy", 30, host="127.0.0.7") as d:
        port = open_kit(d.place.kits / SERVER, "server").port
        proxy = Proxy(("127.0.0.7", port), ("127.0.0.1", port))
        try:
            started(d)
            for _ in range(3):
                d.wait(lambda: answers_arrive(d), "answers arrive", poll=0.001)
                at = rounds_now(d)
                proxy.reset()
                seconds = d.wait(lambda at=at: rounds_now(d) > at + 1, "rounds go on")
            state, wrong = d.committed, d.is_sound()
        finally:
            proxy.close()
    assert state is not None
    full = sum(set(p.answered) == set(TRAIN) for p in state.history)
    book.add("connections reset in mid-upload", 3, "fetched on, or the round goes on; nothing corrupt",
             f"two more rounds after {seconds:.0f} s; {full} of {state.rounds} rounds with all sites; "
             f"{wrong or 'all sound'}", not wrong)  # fmt: skip


# full disks


def disk_full(book: Book, root: Path) -> None:
    with drill(root / "disk", 30) as d:
        with small_disk(d.work(SERVER), 400):
            started(d)
            fill = d.work(SERVER) / "fill"
            full(fill)
            at = rounds_now(d)
            d.wait(
                lambda: d.parties[LEAD].poll() is not None,
                "the lead's verb ends",
                patience=2 * PATIENCE,
            )  # (five segments are begun)
            status = d.status
            kept = rounds_now(d) >= at
            fill.unlink()
            d.start(LEAD)
            d.wait(lambda: rounds_now(d) > at, "it goes on")
            wrong = d.is_sound()
            d.end(LEAD)
        assert status is not None
        book.add("server's disk full", 1, "the run ends with the reason; goes on once there is room",
                 f"{status.state}: {status.why[:80]}; then went on; {wrong or 'all sound'}",
                 status.state == "failed" and "space" in status.why and kept and not wrong)  # fmt: skip
    with drill(root / "disk-site", 30) as d:
        with small_disk(d.work("north"), 200):
            started(d)
            at = rounds_now(d)
            fill = d.work("north") / "fill"
            full(fill)
            d.wait(lambda: any("north" in p.refused for p in d.committed.history[at:]), "named")
            state = d.committed
            fill.unlink()
            back = d.wait(lambda n=state.rounds: any(
                "north" in p.answered for p in d.committed.history[n:]), "north answers again")  # fmt: skip
            why = next(p.refused["north"] for p in state.history[at:] if "north" in p.refused)
            wrong = d.is_sound()
            for name in (LEAD, *SITES):
                d.end(name)
        book.add("a site's disk full", 1, "the round goes on without it; it is back once there is room",
                 f"{why}; answers again after {back:.0f} s; {wrong or 'all sound'}", not wrong)  # fmt: skip


def full(path: Path) -> None:
    with path.open("wb") as out:
        try:
            while True:
                out.write(b"\0" * 65536)
        except OSError:
            return


# quorum


def below_quorum(book: Book, root: Path) -> None:
    with drill(root / "quorum", 30) as d:
        started(d)
        at = rounds_now(d)
        d.end("north", signal.SIGKILL)
        d.end("west", signal.SIGKILL)
        d.wait(lambda: d.status is not None and d.status.state in ("below quorum", "waiting"),
               "below quorum is said")  # fmt: skip
        state = d.status.state
        time.sleep(5)
        still = rounds_now(d)
        d.start("north", "west")
        d.wait(lambda: rounds_now(d) > still, "it goes on")
        wrong = d.is_sound()
    book.add("two of three sites gone, quorum 2", 1,
             "no round is committed below quorum; it goes on once they are back",
             f"{state}; {still - at} rounds meanwhile; went on; {wrong or 'all sound'}",
             still - at <= 1 and not wrong)  # fmt: skip


PARTS = {
    "site": site_killed, "test": site_killed_in_test, "server": server_killed,
    "stopped": site_stopped, "link": link_cut, "reset": upload_reset, "disk": disk_full,
    "quorum": below_quorum,
}  # fmt: skip


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        shutil.rmtree(keep, ignore_errors=True)
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--keep", type=Path, help="folder for everything, which stays")
    parser.add_argument("--out", type=Path, help="file for the table")
    asked = parser.parse_args()
    book = Book()
    with folder(asked.keep) as root:
        for name in asked.only:
            began = time.monotonic()
            try:
                PARTS[name](book, root)
            except AssertionError as error:
                book.add(name, 1, "to come to an end", str(error), False)
            print(f"{name}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    if asked.out is not None:
        asked.out.write_text(book.table())
    print(book.table())
    return 0 if all(r.good for r in book.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
