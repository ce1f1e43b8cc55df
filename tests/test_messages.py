"""Every message, mutated in every way that a site may think of: it is valid, or one error names it."""

from __future__ import annotations

import json
import resource
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_messages import CONTROL, LIMITS, MODEL, NONCE, TRAINING, Sample, samples

from gliofed.errors import UpdateError
from gliofed.federated.checkpoint import CommittedRound, commit, last_committed
from gliofed.federated.gate import UpdateGate
from gliofed.federated.message_table import MESSAGES, MOST_CASES
from gliofed.federated.messages import save_update
from gliofed.federated.schema import ByName, Items, Number, Text, Whole
from gliofed.federated.wire import LARGEST_HEADER, pack, read_note, receive
from gliofed.types import RoundPoint, Stat, Update

NAMES = (*MESSAGES, "note")
_ODD = st.sampled_from(
    [None, True, -1, 0, 1.5, 10**400, -(10**400), float("nan"), float("inf"), "", "x" * 999,
     "\ud800", [], {}, [[]] * 3, {"idh": None}, [0] * 9999, 2**63]
)  # fmt: skip
_JSON = st.recursive(_ODD, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> dict[str, Sample]:
    return dict(samples(tmp_path_factory.mktemp("messages")))


def holds_or_refuses(sample: Sample, data: bytes) -> None:
    with suppress(UpdateError):
        sample.read(data)


def test_there_is_a_sample_of_every_message(every) -> None:
    assert set(every) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_message_is_read(name, every) -> None:
    assert every[name].read(every[name].data) is not None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_changed_bytes_are_refused_or_valid(name, every, data) -> None:
    whole = bytearray(every[name].data)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(0, 9))
        whole[at : at + length] = data.draw(st.binary(max_size=9))
        if not whole:
            break
    holds_or_refuses(every[name], bytes(whole))


def _paths(value: object, at: tuple = ()):
    """Every place in a JSON value."""
    yield at
    inner = value.items() if isinstance(value, dict) else ()
    for key, own in enumerate(value) if isinstance(value, list) else inner:
        yield from _paths(own, (*at, key))


def _put(value: object, at: tuple, new: object) -> object:
    if not at:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[at[0]] = _put(copied[at[0]], at[1:], new)
    return copied


def _note_and_tensors(sample: Sample) -> tuple[dict, dict]:
    tensors, note = receive(sample.data, lambda header: None)
    return note, tensors


@pytest.mark.parametrize("name", MESSAGES)
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_a_field_of_any_other_value_is_refused_or_valid(name, every, data) -> None:
    """With a right digest, as a site that lies can compute it."""
    note, tensors = _note_and_tensors(every[name])
    at = data.draw(st.sampled_from(list(_paths(note))[1:]))
    changed = _put(note, at, data.draw(_JSON))
    holds_or_refuses(every[name], pack(tensors, changed))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_field_more_or_less_is_refused(name, every) -> None:
    note, tensors = _note_and_tensors(every[name])
    for field in note:
        less = {k: v for k, v in note.items() if k != field}
        with pytest.raises(UpdateError, match=f"lacks .*{field}|field kind is None|form None"):
            every[name].read(pack(tensors, less))
    with pytest.raises(UpdateError, match="its note has 'more', expected only"):
        every[name].read(pack(tensors, {**note, "more": 1}))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Whole(0, 9), [0, 9], [-1, 10, True, 1.0, "1", None, 10**400]),
        (Number(-1, 1), [-1, 1, 0.5, 0], [1.01, -1.01, float("nan"), 10**400, True, "0"]),
        (Text(3), ["", "abc"], ["abcd", 1, None]),
        (Items(Whole(0, 1), 1, 2), [[0], [0, 1]], [[], [0, 1, 1], [2], (0,), {"0": 1}]),
        (ByName(("a", "b"), Whole(0, 1)), [{}, {"a": 1}], [{"c": 1}, {"a": 2}, ["a"]]),
        (ByName(("a",), Whole(0, 1), every=True), [{"a": 1}], [{}, {"a": 1, "b": 1}]),
    ],
)  # fmt: skip
def test_both_sides_of_the_bound_of_each_kind(kind, good, bad) -> None:
    for value in good:
        kind.check(value, "it")
    for value in bad:
        with pytest.raises(UpdateError, match="its field it"):
            kind.check(value, "it")


def raw(note: str | bytes, tensors: str = "") -> bytes:
    """A message with this text as its note, and more text in its header."""
    text = note.decode() if isinstance(note, bytes) else note
    header = f'{{"__metadata__":{{"gliofed":{json.dumps(text)}}}{tensors}}}'.encode()
    return struct.pack("<Q", len(header)) + header


EMPTY = ',"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
HOSTILE = {
    "deep nesting": (raw("[" * 400_000), "not in the format"),
    "deep nesting of the header": (struct.pack("<Q", 9**6) + b"[" * 9**6, "not in the format"),
    "a long integer": (raw('{"cases": ' + "9" * 500_000 + "}"), "not in the format"),
    "a name twice": (raw('{"run": "a", "run": "b"}'), "a name stands twice"),
    "a tensor twice": (raw("{}", EMPTY.format("a") * 2), "a name stands twice"),
    "a longer header": (struct.pack("<Q", LARGEST_HEADER + 1), f"at most {LARGEST_HEADER}"),
    "empty tensors": (
        raw("{}", "".join(EMPTY.format(f"t{n}") for n in range(15_000))), "the model lacks"),
    "tensors of 2**50 bytes": (
        raw("{}", ',"up.0.weight":{"dtype":"F64","shape":[1099511627776,99],"data_offsets":[0,0]}'),
        "lacks tensors of the model"),
    "an axis below 0": (
        raw("{}", ',"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}'), "shape.0 is -1"),
    "a dtype of no name": (
        raw("{}", ',"a":{"dtype":"F1","shape":[1],"data_offsets":[0,0]}'), "has dtype 'F1'"),
    "lists": (raw("[" + "[]," * 200_000 + "[]]"), "no JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_refused_before_any_tensor_is_read(kind, tmp_path, monkeypatch) -> None:
    data, words = HOSTILE[kind]
    (tmp_path / "update").write_bytes(data)
    monkeypatch.delattr("safetensors.safe_open")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UpdateError, match=f"site a: update refused: .*{words}") as refused:
        _gate_of_any_size().check("a", tmp_path / "update")
    assert len(str(refused.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


class _AnySize(UpdateGate):
    largest = 2**40


def _gate_of_any_size() -> UpdateGate:
    return _AnySize(TRAINING, LIMITS)


def test_the_longest_header_is_read_and_one_byte_more_is_not() -> None:
    whole = raw("{}")
    header = whole[8:] + b" " * (LARGEST_HEADER - len(whole) + 8)
    assert read_note(struct.pack("<Q", len(header)) + header) == {}
    with pytest.raises(UpdateError, match=f"its header has {LARGEST_HEADER + 1} bytes"):
        read_note(struct.pack("<Q", len(header) + 1) + header + b" ")


def update(**changes) -> Update:
    labelled = dict.fromkeys(("mask", "idh", "codel_1p19q", "mgmt", "grade"), 1)
    whole = {"run": "run", "round": 3, "nonce": NONCE, "site": "a", "tensors": MODEL, "cases": 10,
             "labelled": labelled, "stats": {}, "extra": CONTROL}  # fmt: skip
    return Update(**{**whole, **changes})


def test_names_of_statistics_are_closed_and_their_numbers_bounded(tmp_path) -> None:
    gate, path = UpdateGate(TRAINING, LIMITS), tmp_path / "update"
    every = {n: Stat(1e30, 1e30) for n in ("mask", "idh", "dice", "skipped", "gradient_norm")}
    save_update(path, update(stats=every))
    assert gate.check("a", path).stats == every
    for stats, words in (
        ({f"s{n}": Stat(1, 1) for n in range(9000)}, "stats has 's0', expected only mask, idh"),
        ({"mask": Stat(10**400, 1)}, r"stats\.mask\.0 is 1000.*, expected a number"),
        ({"mask": Stat(1.1e30, 1)}, r"stats\.mask\.0 is 1\.1e\+30"),
        ({"mask": Stat(1, -1)}, r"stats\.mask\.1 is -1"),
    ):
        save_update(path, update(stats=stats))
        with pytest.raises(UpdateError, match=f"site a: update refused: its field {words}"):
            gate.check("a", path)


def test_a_wrong_digest_is_seen_before_the_fields_and_after_the_names(tmp_path) -> None:
    path = tmp_path / "update"
    save_update(path, update(cases=MOST_CASES + 1))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UpdateError, match="its digest does not match"):
        UpdateGate(TRAINING, LIMITS).check("a", path)
    save_update(path, update(tensors={**MODEL, "more": torch.ones(1)}))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UpdateError, match=r"tensors the model lacks: .*more"):
        UpdateGate(TRAINING, LIMITS).check("a", path)


def test_a_checkpoint_of_a_long_run_can_be_read(tmp_path: Path) -> None:
    """3,000 commits with three sites: some MiB of history, beyond a message's header."""
    sites = dict.fromkeys(("north", "south", "west"), 1.0)
    point = RoundPoint(1, 1, dict.fromkeys(("mask", "idh", "mgmt"), 0.1), 0.5, 1.0, 2.0, 3,
                       dict.fromkeys(sites, "refused" * 20), sites, dict.fromkeys(sites, 1))  # fmt: skip
    state = CommittedRound("run", 3000, MODEL, (point,) * 3000)
    commit(tmp_path, state)
    assert last_committed(tmp_path, "run").history == state.history
