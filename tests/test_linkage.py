"""Patients of several sites compared over a federation's messages: who keeps, who learns what."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliofed.errors import CheckpointError, OverlapError, UpdateError
from gliofed.federated.linkage.client import LinkageConfig, LocalAnnouncement, announce_patients
from gliofed.federated.linkage.messages import (
    MAX_IDS,
    MAX_SCANS,
    NoticeReceipt,
    SharedNotice,
    TokensRequest,
    TokensResponse,
    largest_tokens,
    load_linkage_request,
    load_receipt,
    load_tokens,
    save_linkage_request,
    save_receipt,
    save_tokens,
    within_limits,
)
from gliofed.federated.linkage.server import (
    SharedPatient,
    SharedRow,
    SitePatient,
    find_pairs,
    left_out,
)
from gliofed.federated.linkage.site_decisions import (
    SiteDecisions,
    decide,
    read_decisions,
    write_decisions,
)
from gliofed.federated.linkage.tokens import study_salt
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.linkage import ORDER, compare_patients, count_text, forget_tokens
from gliofed.federated.wire import load, save
from gliofed.study import Study
from gliofed.types import Case, Labels

SALT = study_salt("tests")
RUN = "ab" * 12


def announced(site: str, *patients: str) -> LocalAnnouncement:
    cases = [Case(f"{p}x", site, p, {}, None, Labels()) for p in patients]
    return announce_patients(site, cases, SALT, LinkageConfig(("id",)))


@pytest.fixture
def study(tiny_study) -> Study:
    data = dataclasses.replace(tiny_study.data, train=("a", "b"), external=("z",))
    return dataclasses.replace(tiny_study, data=data)


class Sites:
    """Sites with patients that respond as a hospital's client does.

    forbidding: sites whose policy permits no comparison. absent: sites without a response. lost:
    sites that do not confirm a notice.
    """

    def __init__(self, spool: Path, **patients: str) -> None:
        self.spool = spool
        self.local = {site: announced(site, *names.split()) for site, names in patients.items()}
        self.decisions = dict.fromkeys(patients, SiteDecisions())
        self.forbidding: set[str] = set()
        self.absent: set[str] = set()
        self.lost: set[str] = set()
        self.received: dict[str, SharedNotice] = {}

    def engine(self, names: Sequence[str]):
        sites = self

        class Engine:
            def send(self, request: Path) -> Iterator[SiteReply]:
                for name in sorted(names):
                    yield sites.reply(name, request)

        return Engine()

    def reply(self, name: str, request: Path) -> SiteReply:
        parsed, file = load_linkage_request(request), self.spool / name
        if name in self.absent or (isinstance(parsed, SharedNotice) and name in self.lost):
            return SiteReply(name, None, "its connection was lost")
        local = self.local[name]
        if isinstance(parsed, TokensRequest):
            tokens = None if name in self.forbidding else local.tokens
            save_tokens(file, TokensResponse(parsed.run, parsed.nonce, name, tokens))
        else:
            self.received[name] = parsed
            self.decisions[name] = decide(self.decisions[name], local, parsed)
            save_receipt(file, NoticeReceipt(parsed.run, parsed.nonce, name))
        return SiteReply(name, file)

    def left_out(self) -> Mapping[str, tuple[str, ...]]:
        return {s: d.left_out for s, d in self.decisions.items() if d.left_out}


# who keeps a patient


def test_an_external_site_keeps_a_shared_patient_then_the_first_in_the_order_of_the_study(
    study, tmp_path
) -> None:
    sites = Sites(tmp_path, a="P1 P2 P3 A9", b="sub-p02 B9", z="p-3 Z9")
    found = compare_patients(sites.engine, study, RUN, tmp_path)
    assert sites.left_out() == {"a": ("P3",), "b": ("sub-p02",)}
    assert {s: dict(d.shared) for s, d in sites.decisions.items()} == {
        "a": {"P2": 1, "P3": 1}, "b": {"sub-p02": 1}, "z": {"p-3": 1}}  # fmt: skip
    assert found.compared == ("z", "a", "b")
    assert found.shared == {"a and b": "1 to 10", "a and z": "1 to 10"}
    assert (found.patients, found.uncompared, found.excluded) == (2, {}, {})


def test_a_site_that_joins_later_changes_no_earlier_decision(study, tmp_path) -> None:
    sites = Sites(tmp_path, a="P1", b="P1 P2", z="P2 P1")
    sites.absent = {"z"}
    compare_patients(sites.engine, study, RUN, tmp_path)
    assert sites.left_out() == {"b": ("P1",)}
    sites.absent = set()
    compare_patients(sites.engine, study, RUN, tmp_path)
    assert sites.left_out() == {"b": ("P1",), "z": ("P1", "P2")}  # a and b have trained on them


def test_the_tokens_of_an_absent_site_stay_compared_until_the_run_is_complete(
    study, tmp_path
) -> None:
    sites = Sites(tmp_path, a="P1", b="P2", z="P1")
    sites.absent = {"z"}
    compare_patients(sites.engine, study, RUN, tmp_path)
    sites.absent = {"a"}
    found = compare_patients(sites.engine, study, RUN, tmp_path)
    assert sites.left_out() == {"z": ("P1",)}
    assert found.uncompared == {"a": "its connection was lost"}
    assert found.excluded == {"a": "its patients were not compared: its connection was lost"}
    assert (tmp_path / "linkage/a.safetensors").is_file()
    forget_tokens(tmp_path)
    assert not (tmp_path / "linkage").exists()


def test_a_chain_over_a_later_site_joins_no_two_earlier_ones() -> None:
    def pair(*places: str) -> SharedPatient:
        first, second = (SitePatient(*p.split("/")) for p in places)  # type: ignore[arg-type]
        return SharedPatient(first, second, ("id",))

    pairs = [pair("a/1", "c/1"), pair("b/1", "c/1")]
    assert left_out(("a", "b", "c"), pairs) == {SitePatient("c", "1")}
    assert left_out(("c", "a", "b"), pairs) == {SitePatient("a", "1"), SitePatient("b", "1")}
    assert left_out(("a", "b"), pairs) == frozenset()
    twice = [pair("a/1", "a/2"), pair("a/2", "b/1")]
    assert left_out(("a", "b"), twice) == {SitePatient("b", "1")}  # both stay at their own site


def test_a_study_that_refuses_shared_patients_tells_the_sites_and_leaves_out_none(
    study, tmp_path
) -> None:
    refusing = dataclasses.replace(study.federation, overlap="refuse")
    study = dataclasses.replace(study, federation=refusing)
    sites = Sites(tmp_path, a="P1 A1", b="P1", z="Z1")
    with pytest.raises(OverlapError, match="a and b share 1 to 10"):
        compare_patients(sites.engine, study, RUN, tmp_path)
    assert sites.left_out() == {}
    assert dict(sites.decisions["b"].shared) == {"P1": 1}
    apart = Sites(tmp_path, a="P1", b="P2", z="P3")
    assert compare_patients(apart.engine, study, RUN, tmp_path).shared == {}


@pytest.mark.parametrize(("equal", "alike"), [(4, False), (5, False), (6, True)])
def test_sites_that_number_their_patients_alike_stop_the_study(
    equal, alike, study, tmp_path
) -> None:
    """Of ten patients each: more than half have an equal id, by chance."""
    names = [f"{n:03d}" for n in range(10)]
    mine = " ".join(names[:equal] + [f"x{n}" for n in range(10 - equal)])
    sites = Sites(tmp_path, a=" ".join(names), b=mine, z="Z1")
    if not alike:
        assert compare_patients(sites.engine, study, RUN, tmp_path).patients == equal
        return
    with pytest.raises(OverlapError, match="more than half of the patients of a or of b"):
        compare_patients(sites.engine, study, RUN, tmp_path)
    assert sites.received == {}


# sites that are not compared


def test_a_site_may_forbid_the_comparison_and_takes_part_by_name(study, tmp_path) -> None:
    sites = Sites(tmp_path, a="P1", b="P1", z="Z1")
    sites.forbidding = {"b"}
    found = compare_patients(sites.engine, study, RUN, tmp_path)
    assert found.uncompared == {"b": "the policy of the site does not permit it"}
    assert found.excluded == {}
    assert "b" not in sites.received
    assert sites.left_out() == {}


def test_a_site_that_does_not_confirm_takes_no_part(study, tmp_path) -> None:
    sites = Sites(tmp_path, a="P1", b="P1", z="Z1")
    sites.lost = {"b"}
    found = compare_patients(sites.engine, study, RUN, tmp_path)
    assert set(found.excluded) == {"b"}
    assert found.compared == ("z", "a")


def test_a_damaged_order_and_one_of_another_run_are_refused(study, tmp_path) -> None:
    sites = Sites(tmp_path, a="P1", b="P2", z="Z1")
    compare_patients(sites.engine, study, RUN, tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        compare_patients(sites.engine, study, "cd" * 12, tmp_path)
    (tmp_path / ORDER).write_text('{"run":')
    with pytest.raises(CheckpointError, match="damaged"):
        compare_patients(sites.engine, study, RUN, tmp_path)


def test_small_counts_are_not_shown() -> None:
    assert [count_text(n) for n in (0, 1, 10, 11)] == ["0", "1 to 10", "1 to 10", "11"]


# what a site does with a notice


def notice(*rows: tuple[int, int, bool], site: str = "a") -> SharedNotice:
    return SharedNotice(RUN, "n", site, tuple(SharedRow(*r) for r in rows))


def test_a_decision_is_made_once_a_run(tmp_path) -> None:
    local = announced("a", "P1", "P2")
    one, two = local.patients
    first = decide(SiteDecisions(), local, notice((0, 1, False)))
    assert (first.left_out, first.compared) == ((one,), ("P1", "P2"))
    again = decide(first, local, notice((1, 2, False)))
    assert again.left_out == (one,)  # nor taken back, nor one more: a count would tell of them
    assert again.shared == {one: 1, two: 2}
    grown = announced("a", "P1", "P2", "P3")
    new = grown.patients.index("P3")
    assert set(decide(again, grown, notice((new, 1, False))).left_out) == {one, "P3"}
    write_decisions(tmp_path, again)
    assert read_decisions(tmp_path) == again
    assert (tmp_path / "shared_patients.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "shared_patients.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        read_decisions(tmp_path)
    assert read_decisions(tmp_path / "none") == SiteDecisions()
    assert again.summary == "of this site's 2 patients, at other sites, too: 2; left out here: 1"
    none = decide(SiteDecisions(), local, notice())
    assert none.summary == "none of this site's 2 patients was found at another site"


def test_a_notice_about_others_is_refused() -> None:
    local = announced("a", "P1", "P2")
    decide(SiteDecisions(), local, notice((1, 1, True)))
    with pytest.raises(UpdateError, match="patient 2; this site has announced 2"):
        decide(SiteDecisions(), local, notice((2, 1, True)))
    with pytest.raises(UpdateError, match="for site 'b', not for 'a'"):
        decide(SiteDecisions(), local, notice(site="b"))


# the messages


def test_requests_and_receipts_come_back(tmp_path) -> None:
    file = tmp_path / "m"
    for request in (TokensRequest(RUN, "n"), notice((3, 1, True), (5, 2, False)), notice()):
        save_linkage_request(file, request)
        assert load_linkage_request(file) == request
    receipt = NoticeReceipt(RUN, "n", "a")
    save_receipt(file, receipt)
    assert load_receipt(file) == receipt


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "train"},
        {"elsewhere": [[0, 0, True]]},
        {"elsewhere": [[-1, 1, True]]},
        {"elsewhere": [[0, 1, 1]]},
        {"elsewhere": [[0, True, True]]},
        {"elsewhere": [[0, 1]]},
        {"elsewhere": 3},
        {"site": None, "elsewhere": None},
    ],
)
def test_a_malformed_notice_is_refused(changes, tmp_path) -> None:
    note = {"kind": "notice", "run": RUN, "nonce": "n", "site": "a", "elsewhere": [[0, 1, True]]}
    save(tmp_path / "m", {}, note)
    assert isinstance(load_linkage_request(tmp_path / "m"), SharedNotice)
    save(tmp_path / "m", {}, {**note, **changes})
    with pytest.raises(UpdateError, match=r"its field (kind|elsewhere|site)"):
        load_linkage_request(tmp_path / "m")


def test_a_message_holds_tokens_and_no_id(tmp_path) -> None:
    names = ("TCGA-FG-A60K", "Miller1948")
    one, other = tmp_path / "one", tmp_path / "other"
    for path, order in ((one, names), (other, names[::-1])):
        tokens = announced("north", *order).tokens
        save_tokens(path, TokensResponse(RUN, "n", "north", tokens))
    tensors, note = load(one)
    assert note == {"form": "overlap-2", "run": RUN, "nonce": "n", "site": "north", "patients": 2}
    assert set(tensors) == {"ids", "id_owner", "images", "shown", "image_owner"}
    data = one.read_bytes()
    for text in (b"A60K", b"iller", b"ILLER", SALT.secret):
        assert text not in data
    assert other.read_bytes() == data  # the order of the table is not sent
    save_tokens(other, TokensResponse(RUN, "n", "north", None))
    assert load_tokens(other, 5).tokens is None


def test_tokens_that_cannot_be_are_refused(tmp_path) -> None:
    good = tmp_path / "good"
    save_tokens(good, TokensResponse(RUN, "n", "a", announced("a", "P1", "P2").tokens))
    tensors, note = load(good)
    read = load_tokens(good, 2).tokens
    assert read is not None
    assert (read.patients, len(find_pairs([read]))) == (2, 0)
    bad = [
        (tensors, {**note, "patients": 3}),
        (tensors, {**note, "patients": True}),
        (tensors, {**note, "patients": -1}),
        (tensors, {**note, "patients": None}),
        (tensors, {**note, "form": "overlap-1"}),
        ({k: v for k, v in tensors.items() if k != "ids"}, note),
        ({**tensors, "ids": tensors["ids"][:, :8]}, note),
        ({**tensors, "ids": tensors["ids"].int()}, note),
        ({**tensors, "id_owner": tensors["id_owner"] + 1}, note),
        ({**tensors, "id_owner": tensors["id_owner"] - 1}, note),
    ]
    for number, (some, other) in enumerate(bad):
        path = tmp_path / str(number)
        save(path, some, other)
        with pytest.raises(UpdateError):
            load_tokens(path, 2)
    for changes in (
        {"form": "x" * 9999},
        {"patients": "x" * 9999},
        {"site": "x" * 9999, "form": 3},
    ):
        save(tmp_path / "long", tensors, {**note, **changes})
        with pytest.raises(UpdateError) as refused:
            load_tokens(tmp_path / "long", 2)
        assert len(str(refused.value)) < 200, "the lead's screen shows text of a site"


def test_ids_scans_and_bytes_have_bounds(tmp_path) -> None:
    tokens = announced("a", "P1").tokens

    def ids(count: int):
        return dataclasses.replace(
            tokens, ids=np.zeros((count, 16), np.uint8), id_owner=np.zeros(count, np.int32)
        )

    file = tmp_path / "m"
    for count, fits in ((MAX_IDS, True), (MAX_IDS + 1, False)):
        save_tokens(file, TokensResponse(RUN, "n", "a", ids(count)))
        if fits:
            assert load_tokens(file, 9).tokens is not None
            continue
        with pytest.raises(
            UpdateError,
            match=f"rows of id_owner is {MAX_IDS + 1}, expected an integer from 0 to {MAX_IDS}",
        ):
            load_tokens(file, 9)
    with file.open("wb") as stream:
        stream.truncate(largest_tokens(1) + 1)
    with pytest.raises(UpdateError, match="bytes, allowed are"):
        load_tokens(file, 1)
    shape = (MAX_SCANS + 1,)
    empty = np.broadcast_to(np.int32(0), (*shape, *tokens.images.shape[1:]))
    many = dataclasses.replace(
        tokens, images=empty, shown=np.zeros((*shape, 4), np.uint8), image_owner=np.zeros(*shape)
    )
    assert {len(within_limits(many).images), len(within_limits(many).shown)} == {MAX_SCANS}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "cd" * 12}, "nonce"),
        ({"nonce": "m"}, "nonce"),
        ({"site": "b"}, "name of another site"),
    ],
)
def test_tokens_of_another_origin_are_refused(changes, words, study, tmp_path) -> None:
    sites = Sites(tmp_path, a="P1", b="P2", z="Z1")
    honest = sites.reply

    def reply(name: str, request: Path) -> SiteReply:
        answer = honest(name, request)
        if name == "a" and isinstance(load_linkage_request(request), TokensRequest):
            response = load_tokens(answer.response, 9)
            save_tokens(answer.response, dataclasses.replace(response, **changes))
        return answer

    sites.reply = reply
    found = compare_patients(sites.engine, study, RUN, tmp_path)
    assert words in found.uncompared["a"]
    assert set(found.excluded) == {"a"}
    assert found.compared == ("z", "b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ("kind", "form", "run", "nonce", "site", "patients", "elsewhere")


@pytest.mark.parametrize(
    ("start", "read"),
    [
        ({"kind": "notice", "elsewhere": [[0, 1, True]]}, load_linkage_request),
        ({"form": "overlap-2", "patients": 2}, lambda path: load_tokens(path, 9)),
        ({}, load_receipt),
    ],
)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_note_is_read_or_refused(start, read, changes) -> None:
    note = {"run": RUN, "nonce": "n", "site": "a", **start}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        save(path, {}, {**note, **changes}, lasting=False)
        with contextlib.suppress(UpdateError):
            read(path)


def test_a_receipt_has_a_bound(tmp_path) -> None:
    path = tmp_path / "m"
    save_receipt(path, NoticeReceipt(RUN, "n" * 32, "a"))
    assert load_receipt(path).nonce == "n" * 32
    save_receipt(path, NoticeReceipt(RUN, "n" * 33, "a"))
    with pytest.raises(UpdateError, match=r"its field nonce is .* at most 32 characters"):
        load_receipt(path)
