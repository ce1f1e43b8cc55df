"""Audit logs: whatever happens to a line is found, and whatever happens to a writer is mended."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.errors import AuditError, UnwritableError
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.audit_verification import Kind, read_anchors, verify_lines
from gliofed.federated.governance.hash_chain import (
    EVENTS,
    FIELDS,
    LONGEST,
    LogHead,
    encode,
    head_path,
    line_bytes,
    parse_head,
    read_head,
)
from gliofed.markers import BY_ID

LINES = 8
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rounds(log: AuditLog, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        log.write("round-committed", round=number, sites=3, seconds=1.5)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A sound log of `LINES` lines."""
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log = AuditLog(path, "harbour")
    log.write("started", version="0.1.0")
    rounds(log, LINES - 1)
    return path


@pytest.fixture
def copied(written, tmp_path):
    """Write given lines and the sound log's head to a new place."""

    def copy(lines: list[bytes], head: bool = True) -> Path:
        path = tmp_path / "audit.jsonl"
        path.write_bytes(b"".join(lines))
        head_path(path).unlink(missing_ok=True)
        if head:
            head_path(path).write_bytes(head_path(written).read_bytes())
        return path

    return copy


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def rehashed(line: bytes, **changes: object) -> bytes:
    """The line with changes, and a hash that is right again."""
    plain = json.loads(line) | changes
    head = LogHead(plain.pop("n") - 1, plain.pop("prev"))
    own = {k: plain.pop(k) for k in ("at", "who", "event")}
    del plain["hash"]
    return line_bytes(encode(head, **own, fields=plain))


def test_a_log_reads_back_as_it_was_written(written) -> None:
    found = list(gliofed.read_log(written))
    assert [line.n for line in found] == list(range(1, LINES + 1))
    assert (found[0].event, found[0].who, dict(found[0].fields)) == (
        "started", "harbour", {"version": "0.1.0"})  # fmt: skip
    assert dict(found[-1].fields) == {"round": LINES - 2, "sites": 3, "seconds": 1.5}
    verdict = verify_lines(written)
    assert verdict.sound
    assert verdict.head == read_head(written) == AuditLog(written, "harbour").head()
    assert written.stat().st_mode & 0o777 == 0o600
    assert head_path(written).stat().st_mode & 0o777 == 0o600


@quick
@given(st.data())
def test_any_byte_changed_is_found(written, copied, data) -> None:
    whole = written.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(byte != whole[place])
    path = copied([whole[:place], bytes([byte]), whole[place + 1 :]])
    verdict = verify_lines(path)
    assert not verdict.sound
    assert verdict.fault.line == whole[:place].count(b"\n") + 1


@quick
@given(st.data())
def test_any_line_rewritten_with_a_right_hash_is_found(written, copied, data) -> None:
    lines = lines_of(written)
    place = data.draw(st.integers(0, LINES - 1))
    change = data.draw(st.sampled_from([
        {"round": 77}, {"who": "hillside"}, {"event": "stopped"}, {"at": "2020-01-01T00:00:00.000Z"},
        {"prev": "1" * 64}, {"bytes": 3}]))  # fmt: skip
    lines[place] = rehashed(lines[place], **change)
    verdict = verify_lines(copied(lines))
    assert (verdict.fault.line, verdict.fault.kind) == (place + 1, "edited")


@quick
@given(st.integers(0, LINES - 1), st.integers(1, LINES))
def test_any_lines_dropped_are_found(written, copied, place, count) -> None:
    lines = lines_of(written)
    del lines[place : place + count]
    verdict = verify_lines(copied(lines))
    kind = "dropped" if place + count < LINES else "cut off"
    assert (verdict.fault.line, verdict.fault.kind) == (place + 1, kind)


@quick
@given(st.integers(0, LINES - 2), st.data())
def test_any_two_lines_swapped_are_found(written, copied, one, data) -> None:
    other = data.draw(st.integers(one + 1, LINES - 1))
    lines = lines_of(written)
    lines[one], lines[other] = lines[other], lines[one]
    verdict = verify_lines(copied(lines))
    assert (verdict.fault.line, verdict.fault.kind) == (one + 1, "reordered")


@quick
@given(st.integers(0, LINES), st.integers(0, LINES - 1))
def test_any_line_copied_to_another_place_is_found(written, copied, place, source) -> None:
    lines = lines_of(written)
    lines.insert(place, lines[source])
    verdict = verify_lines(copied(lines))
    assert verdict.fault.kind == "inserted"
    beside = place in (source, source + 1)  # two equal lines: either is the copy
    assert verdict.fault.line in ((source + 1, source + 2) if beside else (place + 1,))


@quick
@given(st.integers(0, LINES - 1), st.booleans())
def test_any_forged_line_put_in_between_is_found(written, copied, place, follows) -> None:
    lines = lines_of(written)
    change = {"round": 77} if follows else {"round": 77, "prev": "1" * 64}
    lines.insert(place, rehashed(lines[place], **change))
    verdict = verify_lines(copied(lines))
    # The head knows the hash of the last line, so a forged one in its place is seen at once.
    assert verdict.fault.kind == ("edited" if follows and place == LINES - 1 else "inserted")
    assert verdict.fault.line in (place + 1, place + 2)


@quick
@given(st.data())
def test_any_tail_cut_off_is_found(written, copied, data) -> None:
    whole = written.read_bytes()
    size = data.draw(st.integers(0, len(whole) - 1))
    verdict = verify_lines(copied([whole[:size]]))
    assert verdict.fault.kind == "cut off"
    assert verdict.fault.line == whole[:size].count(b"\n") + 1


@pytest.mark.parametrize("junk", [b"{}\n", b"no JSON\n", b"[" * 4000 + b"\n", b"\xff\n", b"\n", b"7\n",
                                  b"x" * (LONGEST + 1) + b"\n"])  # fmt: skip
def test_what_is_no_line_at_all_is_named(written, copied, junk) -> None:
    lines = lines_of(written)
    verdict = verify_lines(copied([*lines[:3], junk, *lines[3:]]))
    assert (verdict.fault.line, verdict.fault.kind) == (4, "not JSON")


def test_one_line_may_be_ahead_of_the_head_and_two_may_not(written, copied, tmp_path) -> None:
    lines = lines_of(written)
    ahead = [rehashed(lines[-1], n=LINES + 1, prev=json.loads(lines[-1])["hash"])]
    ahead.append(rehashed(lines[-1], n=LINES + 2, prev=json.loads(ahead[0])["hash"]))
    assert verify_lines(copied([*lines, ahead[0]])).sound
    assert AuditLog(tmp_path / "audit.jsonl", "harbour").head().number == LINES + 1  # taken over
    path = copied([*lines, *ahead])
    verdict = verify_lines(path)
    assert (verdict.fault.line, verdict.fault.kind) == (LINES + 2, "inserted")
    with pytest.raises(AuditError, match="that gliofed did not write"):
        AuditLog(path, "harbour").write("stopped")
    assert lines_of(path) == [*lines, *ahead]


def test_a_log_that_was_cut_is_not_written_on(written, copied) -> None:
    path = copied(lines_of(written)[:-1])
    with pytest.raises(AuditError, match=f"ends before its line {LINES} does"):
        AuditLog(path, "harbour").write("stopped")
    assert len(lines_of(path)) == LINES - 1


def test_without_its_head_a_log_needs_anchors(written, copied) -> None:
    lines = lines_of(written)
    path = copied(lines, head=False)
    assert verify_lines(path).fault.kind == "no head"
    assert verify_lines(path, [verify_lines(written).head]).sound
    assert verify_lines(copied(lines[:1], head=False)).sound  # killed before its first head
    head_path(path).write_text("{}")
    with pytest.raises(AuditError, match="is not the head"):
        verify_lines(path)
    with pytest.raises(AuditError, match="no such audit log"):
        verify_lines(path.with_name("nowhere"))


def test_a_lost_head_is_made_again_and_recorded(written, copied) -> None:
    path = copied(lines_of(written), head=False)
    AuditLog(path, "harbour").write("stopped")
    *_, mended, stopped = gliofed.read_log(path)
    assert (mended.event, mended.fields["reason"], stopped.event) == (
        "log-mended",
        "head-missing",
        "stopped",
    )
    assert verify_lines(path).sound


@pytest.mark.parametrize("torn", [b"{", b'{"at":"2025', b"\0" * 300, b"\0\0}\n", b"{}\n"])
def test_a_torn_end_is_moved_aside_and_recorded(written, copied, torn) -> None:
    lines = lines_of(written)
    path = copied([*lines, torn])
    for count in (1, 2):
        AuditLog(path, "harbour").write("started", version="0.1.0")
        *_, mended, started = gliofed.read_log(path)
        assert (mended.event, started.event) == ("log-mended", "started")
        assert dict(mended.fields) == {"reason": "torn-end", "bytes": len(torn)}
        aside = path.with_name(f"audit.jsonl.torn-{count}")
        assert aside.read_bytes() == torn
        assert aside.stat().st_mode & 0o777 == 0o600
        with path.open("ab") as file:
            file.write(torn)
    assert lines_of(path)[:LINES] == lines


def test_a_torn_end_does_not_make_a_log_unsound_and_is_told(written, copied) -> None:
    verdict = verify_lines(copied([written.read_bytes(), b'{"at":']))
    assert verdict.sound
    assert verdict.torn == 6


WRITER = """
import sys
from pathlib import Path
from typing import get_args
from gliofed.federated.governance.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    log.write("request-received", round=number)
"""


def writers(path: Path, names: tuple[str, ...], count: int) -> list[subprocess.Popen]:
    """Processes that write `count` lines each, all of them at once."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in names
    ]
    for child in children:
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        child.stdin.close()
        child.stdout.close()
    return children


@pytest.mark.slow
@pytest.mark.process
def test_a_log_whose_writers_are_killed_stays_sound(tmp_path) -> None:
    path, chance = tmp_path / "audit.jsonl", random.Random(7)
    before = 0
    for _ in range(12):
        (child,) = writers(path, ("harbour",), 10**6)
        while not path.exists() or verify_lines(path).head.number <= before:
            assert child.poll() is None, "the writer ended"
        time.sleep(chance.uniform(0.001, 0.05))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        verdict = verify_lines(path)
        assert verdict.sound, verdict
        assert verdict.head.number > before  # no whole line is ever lost
        before = verdict.head.number
    AuditLog(path, "harbour").write("stopped")
    assert verify_lines(path).sound
    assert verify_lines(path).torn == 0


@pytest.mark.process
def test_several_processes_write_one_log(tmp_path) -> None:
    path = tmp_path / "audit.jsonl"
    children = writers(path, ("one", "two", "three"), 40)
    assert [c.wait() for c in children] == [0, 0, 0]
    assert verify_lines(path).sound
    found = [(line.who, line.fields["round"]) for line in gliofed.read_log(path)]
    assert len(found) == 120
    for who in ("one", "two", "three"):
        assert [n for w, n in found if w == who] == list(range(40))


@pytest.mark.process
def test_a_full_disk_is_one_error_and_leaves_the_log_as_it_was(tmp_path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path, "harbour").write("started", version="0.1.0")
    code = (
        "import resource, sys; from pathlib import Path; from gliofed.errors import UnwritableError\n"
        "from gliofed.federated.governance.audit_log import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]), 'harbour')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    while True: log.write('stopped')\n"
        "except UnwritableError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert path.stat().st_size < 2000
    verdict = verify_lines(path)
    assert verdict.sound
    assert verdict.torn == 0
    assert verdict.head == read_head(path)
    AuditLog(path, "harbour").write("stopped")
    assert verify_lines(path).head.number == verdict.head.number + 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_one_error(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UnwritableError, match="see to the folder's rights"):
        AuditLog(tmp_path / "audit.jsonl", "harbour").write("stopped")


def test_a_file_in_the_place_of_the_folder_is_one_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="cannot be written to"):
        AuditLog(tmp_path / "file" / "audit.jsonl", "harbour").write("stopped")


class TestAnchors:
    def test_a_log_rewritten_from_scratch_is_found_by_the_other_side(self, tmp_path) -> None:
        site, server = (
            AuditLog(tmp_path / "s/a.jsonl", "north"),
            AuditLog(tmp_path / "c/a.jsonl", "server"),
        )
        for number in range(3):
            rounds(site, 2, first=2 * number)
            server.note("north", site.head())
        anchors = read_anchors(server.path, "north")
        assert [a.number for a in anchors] == [2, 4, 6]
        assert verify_lines(site.path, anchors).sound
        assert verify_lines(site.path, anchors).anchors == 3
        forged = AuditLog(tmp_path / "f/a.jsonl", "north")
        rounds(forged, 3)
        forged.write("response-refused", round=3)
        rounds(forged, 2)
        assert verify_lines(forged.path).sound
        verdict = verify_lines(forged.path, anchors)
        assert (verdict.fault.line, verdict.fault.kind) == (2, "edited")

    def test_an_anchor_after_the_end_is_a_cut(self, written) -> None:
        head = verify_lines(written).head
        assert verify_lines(written, [head]).sound
        verdict = verify_lines(written, [head, LogHead(LINES + 1, "ab" * 32)])
        assert (verdict.fault.line, verdict.fault.kind) == (LINES + 1, "cut off")

    def test_two_histories_told_to_the_other_side_are_found(self, written) -> None:
        head = verify_lines(written).head
        verdict = verify_lines(written, [head, LogHead(LINES, "ab" * 32)])
        assert (verdict.fault.line, verdict.fault.kind) == (LINES, "edited")
        assert "two hashes of this line" in verdict.fault.text

    def test_a_head_of_another_log_is_found(self, written, copied) -> None:
        path = copied(lines_of(written))
        head_path(path).write_text(json.dumps({"number": LINES, "hash": "ab" * 32, "size": 9}))
        assert verify_lines(path).fault.kind == "edited"
        assert verify_lines(path, [verify_lines(written).head]).fault.kind == "no head"

    def test_a_server_that_never_heard_of_the_site_or_is_unsound_vouches_for_nothing(
        self, written, copied
    ) -> None:
        with pytest.raises(AuditError, match="contains no head of north"):
            read_anchors(written, "north")
        lines = lines_of(written)
        with pytest.raises(AuditError, match=r"line 3: dropped"):
            read_anchors(copied([*lines[:2], *lines[3:]]), "north")


@pytest.mark.parametrize(
    "fields",
    [{"path": "x"}, {"site": "a/b"}, {"site": "a\\b"}, {"site": "a\x1b[2J"}, {"site": ""}, {"site": "a b"},
     {"site": "x" * 65}, {"reason": "sub-001"}, {"reason": "Smith John"}, {"study": "no hex!!"},
     {"kind": "dataError"}, {"round": -1}, {"round": True}, {"round": 1.5}, {"round": 2**53},
     {"seconds": float("nan")}, {"seconds": float("inf")}, {"seconds": True}, {"seconds": None},
     {"cases": "12"}, {"signed": 1}, {"report": "abcdef0"}, {"report": "a" * 65}, {"site": "a\n"}],
)  # fmt: skip
def test_what_has_no_place_in_a_log_is_refused(tmp_path, fields) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "harbour")
    with pytest.raises(AuditError):
        log.write("response-sent", **fields)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [{"site": "x" * 64}, {"site": "a"}, {"site": "St.-Anna_2"}, {"reason": "no-room"}, {"study": "ab" * 32}, {"round": 0},
     {"round": 2**53 - 1}, {"seconds": 0}, {"seconds": 1.25}, {"signed": True}, {"report": "abcdef01"},
     {"kind": "DataError"}, {"version": "0.1.0"}],
)  # fmt: skip
def test_what_has_a_place_is_kept(tmp_path, fields) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "harbour")
    log.write("response-sent", **fields)
    (line,) = gliofed.read_log(log.path)
    assert dict(line.fields) == fields


def test_events_and_writers_are_of_the_list(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "harbour")
    with pytest.raises(AuditError, match="is not an event"):
        log.write("patient-seen")
    with pytest.raises(AuditError, match="is not a name"):
        AuditLog(tmp_path / "audit.jsonl", "a/b")
    for event in sorted(EVENTS):
        log.write(event)
    assert verify_lines(log.path).head.number == len(EVENTS)


def test_the_longest_line_there_can_be_is_shorter_than_the_bound() -> None:
    longest: dict = dict.fromkeys(FIELDS, 2**53 - 1)
    longest |= {
        "seconds": 1.2345678901234567e-300,
        "signed": False,
        "kind": "K" * 40,
        "marker": max(BY_ID, key=len),
        "site": "x" * 64,
    }
    longest |= dict.fromkeys(("stage", "reason"), "a" * 64)
    longest |= dict.fromkeys(
        (
            "run",
            "continues",
            "study",
            "policy",
            "update",
            "model",
            "nonce",
            "approver",
            "report",
            "head",
        ),
        "a" * 64,
    )
    longest["version"] = "1000.1000.1000.1000+" + "a" * 19
    event = max(EVENTS, key=len)
    head = LogHead(2**53 - 1, "0" * 64)
    line = line_bytes(encode(head, "2025-11-25T04:48:00.000Z", "w" * 64, event, longest))
    assert len(line) <= LONGEST


def test_a_long_log_is_read_in_little_memory(tmp_path) -> None:
    """No more lines are kept than a few."""
    path, prev = tmp_path / "audit.jsonl", "0" * 64
    with path.open("wb") as file:
        for number in range(1, 5_001):
            head = LogHead(number - 1, prev)
            at = "2025-11-25T04:48:00.000Z"
            line = encode(head, at, "north", "request-received", {"round": number})
            prev = line.hash
            file.write(line_bytes(line))
    tracemalloc.start()
    try:
        verdict = verify_lines(path, [LogHead(5_000, prev)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert verdict.sound
    assert verdict.head.number == 5_000
    assert 8 * peak < path.stat().st_size


class TestVerb:
    def run(self, *words: object):
        return CliRunner().invoke(app, ["audit", *map(str, words)])

    def test_a_sound_log_ends_with_0_and_another_with_1(self, written, copied) -> None:
        done = self.run("verify", written)
        assert done.exit_code == 0, done.output
        assert f"{LINES} lines, all unchanged" in done.output
        lines = lines_of(written)
        done = self.run("verify", copied([*lines[:2], *lines[3:]]))
        assert done.exit_code == 1
        assert "line 3: dropped: lines 3 to 3 are missing" in done.output

    def test_a_torn_end_is_told_of(self, written, copied) -> None:
        done = self.run("verify", copied([written.read_bytes(), b"{"]))
        assert done.exit_code == 0
        assert "1 bytes after it" in done.output

    def test_it_compares_with_the_other_side(self, written, copied, tmp_path) -> None:
        server = AuditLog(tmp_path / "server.jsonl", "server")
        server.note("harbour", verify_lines(written).head)
        words = ("--against", server.path, "--site", "harbour")
        done = self.run("verify", written, *words)
        assert done.exit_code == 0, done.output
        assert "1 heads in the log of the other party agree" in done.output
        forged = AuditLog(tmp_path / "forged.jsonl", "harbour")
        rounds(forged, LINES)
        assert self.run("verify", forged.path).exit_code == 0
        assert self.run("verify", forged.path, *words).exit_code == 1
        assert (
            self.run("verify", written, "--against", server.path, "--site", "north").exit_code == 1
        )
        assert self.run("verify", written, "--against", server.path).exit_code == 2

    def test_show_prints_every_line_and_obeys_none(self, written, copied) -> None:
        done = self.run("show", written)
        assert done.exit_code == 0
        assert len(done.output.splitlines()) == LINES
        assert "harbour  started  version=0.1.0" in done.output
        lines = lines_of(written)
        done = self.run("show", copied([*lines[:3], lines[4]]))
        assert done.exit_code == 1
        assert "line 4: dropped" in done.output
        plain = {
            "n": 1,
            "at": "2025-11-25T04:48:00.000Z",
            "who": "\x1b[2J",
            "event": "started",
            "prev": "0" * 64,
        }
        plain["hash"] = hashlib.sha256(
            json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
        done = self.run(
            "show",
            copied([json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() + b"\n"]),
        )
        assert done.exit_code == 0
        assert "started" in done.output
        assert "\x1b" not in done.output

    def test_a_log_that_is_not_there_is_one_line(self, tmp_path) -> None:
        for verb in ("verify", "show"):
            done = self.run(verb, tmp_path / "nowhere")
            assert done.exit_code == 1
            (line,) = done.output.splitlines()
            assert "no such audit log" in line


def test_the_page_on_audit_logs_has_every_event_and_fault() -> None:
    text = (Path(__file__).parents[1] / "docs/how-to/audit.md").read_text()
    rows = "".join(re.findall(r"^\| (`.+?) \|", text, re.M))
    assert set(re.findall(r"`([a-zA-Z -]+)`", rows)) == EVENTS | set(get_args(Kind))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@quick
@given(
    st.binary(min_size=1, max_size=200) | json_values.map(lambda v: json.dumps(v).encode()),
    st.data(),
)
def test_whatever_bytes_stand_in_a_log_or_head_there_is_a_verdict_or_one_error(
    written, copied, junk, data
) -> None:
    lines = lines_of(written)
    path = copied([*lines[:2], junk, *lines[data.draw(st.integers(2, LINES)) :]])
    if data.draw(st.booleans()):
        head_path(path).write_bytes(data.draw(st.binary(max_size=60)) or junk)
    try:
        assert not verify_lines(path).sound or verify_lines(path).torn
    except AuditError as error:
        assert "is not the head" in str(error)


def test_a_head_that_was_told_is_taken_only_where_it_is_one() -> None:
    good = [3, "ab" * 32]
    assert parse_head(good) == LogHead(3, "ab" * 32)
    for bad in (None, 3, "ab", [3], [3, "ab"], [-1, "ab" * 32], [True, "ab" * 32], [3, "AB" * 32],
                [3, "ab" * 32, 1], {"number": 3}):  # fmt: skip
        assert parse_head(bad) is None, bad
