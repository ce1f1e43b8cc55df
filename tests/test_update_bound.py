"""Bounds of updates by the rest of the run: what a site claims, how large it is, refusals in a row."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from test_fed import NONCE
from test_strategies import counts

from gliofed.errors import UpdateError
from gliofed.federated.aggregation.robust import AGGREGATIONS
from gliofed.federated.label_counts import NO_CASES, LabelCounts, loss_weight_a_case
from gliofed.federated.messages import TrainingRequest
from gliofed.federated.update_bound import RECENT, BoundState, SizedUpdate, UpdateBound
from gliofed.study import LossConfig
from gliofed.types import Update

FILE = Path("update")
THREE = {site: counts(10, 10) for site in "abc"}
TWO = {site: counts(10, 10) for site in "ab"}


@pytest.fixture
def bound(tiny_study):
    """Makes the bound of a run with these sites and settings; 5 batches a pass."""

    def make(sites=THREE, state=None, **settings) -> UpdateBound:
        rules = dataclasses.replace(tiny_study.federation, **settings)
        study = dataclasses.replace(tiny_study, federation=rules)
        return UpdateBound(study, sites, 5, state or BoundState())

    return make


def header(site="a", round_number=0, cases=2, labelled=None) -> Update:
    return Update("run", round_number, NONCE, site, {}, cases, labelled or {}, {})


def offer(bound, kind="", **sizes):
    """Factors and refusals of updates of these sizes."""
    updates = [SizedUpdate(header(site), FILE, {kind: size}) for site, size in sizes.items()]
    return bound.factors(updates)


# ---- claims


def labels(**numbers):
    return {"mask": 0, "idh": 0, "codel_1p19q": 0, "mgmt": 0, "grade": 0, **numbers}


@pytest.mark.parametrize(
    ("cases", "labelled", "words"),
    [
        (10, labels(idh=4), ""),
        (11, labels(idh=4), "claims 11 cases, and the site announced 10"),
        (20_000, labels(idh=4), "claims 20000 cases, and the site announced 10"),
        (10, labels(idh=5), "claims 5 labels of idh, and the site announced 4"),
    ],
)
def test_weights_claim_no_more_than_was_announced(bound, cases, labelled, words) -> None:
    own = bound({"a": counts(10, 10, idh=4)}, method="label_aware")
    if words:
        with pytest.raises(UpdateError, match=f"site a: update refused: it {words}"):
            own.check_claims(header(cases=cases, labelled=labelled))
    else:
        own.check_claims(header(cases=cases, labelled=labelled))


def test_gradients_of_one_pass_claim_no_more_together(bound) -> None:
    own = bound()
    for number, cases in ((0, 6), (1, 0), (4, 4), (5, 10)):  # rounds 0 to 4 are the first pass
        own.check_claims(header(round_number=number, cases=cases))
    again = bound(state=BoundState(**json.loads(json.dumps(dataclasses.asdict(own.state)))))
    for one in (own, again):
        with pytest.raises(
            UpdateError, match="of pass 2 claim 11 cases, and the site announced 10"
        ):
            one.check_claims(header(round_number=6, cases=1))
        one.check_claims(header("b", round_number=6, cases=10))


def test_a_site_without_counts_takes_no_part(bound) -> None:
    own = bound()
    own.check_member("a")
    with pytest.raises(UpdateError, match="site late: update refused: it announced no counts"):
        own.check_member("late")


def test_a_gradient_without_any_announced_label_is_refused(bound) -> None:
    own = bound({**THREE, "d": counts(10)})
    own.check_claims(header("d", cases=0))
    with pytest.raises(UpdateError, match="announced neither a label nor a mask"):
        own.check_claims(header("d", cases=1))


# ---- sizes


def test_both_sides_of_the_bounds(bound) -> None:
    """Three sites of size 1, 2 and x: the reference is 2, and x where it is below."""
    for size, factor, refused in ((9.9, None, False), (10.1, 10 / 10.1, False),
                                  (29.9, 10 / 29.9, False), (30.1, None, True)):  # fmt: skip
        factors, why = offer(bound(), a=1.0, b=2.0, c=size)
        assert set(why) == ({"c"} if refused else set())
        assert set(factors) == ({"a", "b"} if refused else {"a", "b", "c"})
        assert factors["a"] == factors["b"] == {}
        if not refused:
            assert factors["c"] == ({} if factor is None else {"": pytest.approx(factor)})
    assert "15.1 times the size that is usual" in offer(bound(), a=1.0, b=2.0, c=30.1)[1]["c"]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_only_the_mean_refuses_for_size(bound, aggregation) -> None:
    """Robust rows scale down alike: sites with patients that they leave out have long gradients."""
    factors, refused = offer(bound(aggregation=aggregation), a=1.0, b=2.0, c=30.1)
    if aggregation == "mean":
        assert set(refused) == {"c"}
    else:
        assert not refused
        assert factors["c"] == {"": pytest.approx(10 / 30.1)}


def test_of_two_sites_neither_is_refused_and_the_smaller_counts(bound) -> None:
    factors, refused = offer(bound(TWO), a=1.0, b=490.0)
    assert not refused
    assert factors == {"a": {}, "b": {"": pytest.approx(5 / 490)}}


def test_one_site_alone_is_its_own_reference(bound) -> None:
    own = bound({"a": counts(10, 10)})
    for size in (1.0, 3.0, 2.0):
        assert offer(own, a=size) == ({"a": {}}, {})


def test_a_mean_is_bounded_so_that_a_rare_patient_passes(bound) -> None:
    own = bound()
    for _ in range(RECENT):
        offer(own, a=1.0, b=1.0, c=1.0)
    factors, refused = offer(own, a=1.0, b=1.0, c=60.0)  # mean (19 + 60) / 20 = 3.95
    assert factors["c"] == {}
    assert not refused
    merged = 0.0
    for _ in range(RECENT):
        factors, _ = offer(own, a=1.0, b=1.0, c=12.0)
        merged += 12 * factors["c"].get("", 1.0)
    assert merged <= 5 * RECENT  # and not 12 each
    assert merged > RECENT  # at least the usual size each time
    assert len(own.state.sizes["c"][""]) == RECENT


@pytest.mark.parametrize(("times", "merged"), [(14, 60), (16, 0)])
def test_a_site_that_stays_too_large_is_refused_although_it_is_scaled_down(
    bound, times, merged
) -> None:
    """Before and after the bound of 15: what was merged, at most 5 references, does not excuse."""
    own = bound()
    accepted = 0
    for _ in range(RECENT):
        offer(own, a=1, b=1, c=1)
    for _ in range(RECENT + 60):
        factors, _ = offer(own, a=1, b=1, c=times)
        accepted = accepted + 1 if "c" in factors else 0
    assert (accepted >= merged) if merged else (accepted == 0)


def test_a_site_that_is_itself_again_takes_part_again(bound) -> None:
    own = bound()
    for _ in range(RECENT):
        offer(own, a=1, b=1, c=40)
    rounds = next(n for n in range(99) if "c" in offer(own, a=1, b=1, c=1)[0])
    assert (
        rounds == 12
    )  # the mean of 20 is 15 or less once 12 or more of them are 1 and the rest 40


def test_all_sites_may_grow_together(bound) -> None:
    own = bound()
    for _ in range(RECENT):
        offer(own, a=1.0, b=1.0, c=1.0)
    factors, refused = offer(own, a=400.0, b=300.0, c=350.0)
    assert not refused
    assert factors == {"a": {}, "b": {}, "c": {}}


def test_a_minority_moves_no_reference(bound) -> None:
    """Two of five send next to nothing, or very much: the honest ones are as they were."""
    five = {site: counts(10, 10) for site in "abcde"}
    for size in (1e-6, 1e6):
        own = bound(five)
        for _ in range(3):
            factors, refused = offer(own, a=1.0, b=1.2, c=0.8, d=size, e=size)
            assert factors["a"] == factors["b"] == factors["c"] == {}
            assert set(refused) == ({"d", "e"} if size > 1 else set())


def test_a_resumed_run_bounds_alike(bound) -> None:
    own = bound()
    offer(own, a=1.0, b=1.0, c=4.0)
    state = BoundState(**json.loads(json.dumps(dataclasses.asdict(own.state))))
    assert offer(bound(state=state), a=1.0, b=1.0, c=9.0) == offer(own, a=1.0, b=1.0, c=9.0)


def test_a_gradient_is_measured_a_case_and_by_what_the_loss_weighs(bound) -> None:
    """Of 12 patients 2 are mutants, at b: its cases have the weight (2 x 3 + 2 x 0.6) / 4."""

    def idh(*classes):
        plain = {k: (0,) * len(v) for k, v in NO_CASES.classes.items()}
        return LabelCounts(sum(classes), 0, {**plain, "idh": classes})

    sites = {"a": idh(8, 0), "b": idh(2, 2)}
    total = sum(sites.values(), NO_CASES)
    weights = {s: loss_weight_a_case(LossConfig(), own, total) for s, own in sites.items()}
    assert weights == pytest.approx({"a": 0.6, "b": 1.8})
    assert loss_weight_a_case(LossConfig(), total, total) == pytest.approx(1)
    assert loss_weight_a_case(LossConfig(), NO_CASES, total) == 0
    model = {"up.0.weight": torch.zeros(2)}
    request = TrainingRequest("run", NONCE, 0, 9, 2, model, {}, 12, {})
    sent = dataclasses.replace(
        header("b", cases=2), tensors={"up.0.weight": torch.tensor([3.0, 4.0])}
    )
    sized = bound(sites).size(request, sent, FILE)
    assert sized.sizes == {"": pytest.approx(5 / (2 * 1.8))}
    assert not sized.update.tensors
    changed = bound(sites, method="scaffold").size(
        request,
        dataclasses.replace(sent, extra={"control": {"up.0.weight": torch.tensor([0.0, 2.0])}}),
        FILE,
    )
    assert changed.sizes == {"": pytest.approx(5), "control": pytest.approx(2)}


# ---- refused in a row


def refuse(bound, number, *sites, accepted=()):
    merged = {s: SizedUpdate(header(s, cases=c), FILE, {}) for s, c in accepted}
    return bound.record(number, merged, {s: f"site {s}: no" for s in sites})


def test_a_site_refused_twice_in_a_row_is_named(bound) -> None:
    own = bound()
    assert refuse(own, 0, "a") == {}
    assert refuse(own, 1, accepted=[("a", 0)]) == {}  # without a case: nothing is known
    assert refuse(own, 2, "a") == {"a": "site a: no; 2 updates in a row were refused"}
    assert refuse(own, 3, accepted=[("a", 1)]) == {}
    assert refuse(own, 4, "a") == {}
    assert not own.left_out


def test_a_study_can_leave_it_out(bound) -> None:
    own = bound(leave_out_after=3)
    for number in range(2):
        refuse(own, number, "a")
    own.check_member("a")
    assert "left out of the run (leave_out_after)" in refuse(own, 2, "a")["a"]
    again = bound(state=BoundState(**json.loads(json.dumps(dataclasses.asdict(own.state)))),
                  leave_out_after=3)  # fmt: skip
    for one in (own, again):
        assert one.left_out == {"a": 3}
        with pytest.raises(UpdateError, match="site a: left out of the run since round 4, after 3"):
            one.check_member("a")
        refuse(one, 3, "a")  # its later replies are no further refusals
        assert one.state.refused == {"a": 3}
        factors, _ = offer(one, b=1.0, c=100.0)  # two are left: no majority
        assert factors["c"] == {"": pytest.approx(5 / 100)}
