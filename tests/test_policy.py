"""A hospital's policy: each bound on both sides, and no small count to be had from what leaves."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gliofed.errors import PolicyError
from gliofed.federated.client import count_cases
from gliofed.federated.gate import check_counts
from gliofed.federated.governance.default_policy import DEFAULT_POLICY_TOML
from gliofed.federated.governance.policy import (
    NormOfChange,
    SitePolicy,
    enforce_cases,
    enforce_counts,
    enforce_gradient,
    enforce_request,
    enforce_scores,
    enforce_update,
    hide_labels,
    load_policy,
    parse_policy,
)
from gliofed.federated.label_counts import LabelCounts, class_weights
from gliofed.federated.messages import (
    CountsRequest,
    CountsResponse,
    TrainingRequest,
    save_counts,
    save_update,
)
from gliofed.federated.pass_statistics import PassStatistics, PassSums
from gliofed.federation_config import FederationConfig
from gliofed.markers import MARKERS
from gliofed.types import UNKNOWN, Stat, Update

OPEN = SitePolicy(min_cases=1, min_batch=1, smallest_count=1)
UNCHANGED = NormOfChange(0.0, 1.0)


def counts(cases: int, masks: int | None = None, **classes: tuple[int, ...]) -> LabelCounts:
    none = {m.id: (0,) * len(m.classes) for m in MARKERS}
    return LabelCounts(cases, cases if masks is None else masks, none | classes)


def update(of: LabelCounts, **stats: Stat) -> Update:
    return Update("run", 3, "0" * 32, "north", {"w": torch.zeros(1)}, of.cases, of.labelled, stats)


def gradient(cases: int) -> Update:
    return Update("run", 3, "0" * 32, "north", {"w": torch.ones(1)} if cases else {}, cases, {}, {})


def request(number: int, batches: int) -> TrainingRequest:
    return TrainingRequest("run", "0" * 32, number, 9, batches, {}, {}, 40, {})


def test_the_text_for_hospitals_is_the_default_policy(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(DEFAULT_POLICY_TOML)
    assert load_policy(path) == SitePolicy() == parse_policy({})
    for field in dataclasses.fields(SitePolicy):
        assert f"\n{field.name} = " in DEFAULT_POLICY_TOML


def test_another_setting_is_another_policy() -> None:
    assert SitePolicy().digest == parse_policy({}).digest
    changed = [{"min_cases": 11}, {"smallest_count": 6}, {"markers": ["idh"]}, {"round_statistics": False},
               {"metrics": ["dice"]}, {"max_change": 1.0}, {"approvers": ["ab" * 32]}, {"min_batch": 5},
               {"max_gradient": 2000.0}, {"overlap_by": ["id"]}, {"min_sites": 4},
               {"privacy_epsilon": 8.0}, {"privacy_delta": 1e-6}, {"require_privacy": True}]  # fmt: skip
    digests = {parse_policy(c).digest for c in changed} | {SitePolicy().digest}
    assert len(digests) == len(dataclasses.fields(SitePolicy)) + 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"min_case": 3}, r"unknown key 'min_case'.*'min_cases'"),
        ({"min_cases": 2.5}, "min_cases: expected int, found 2.5"),
        ({"markers": "idh"}, "markers: expected a list"),
        ({"markers": ["idhh"]}, r"unknown marker.*nearest one is 'idh'"),
        ({"markers": ["idh", "idh"]}, "markers: expected each once"),
        ({"metrics": ["loss"]}, "expected one of"),
        ({"metrics": ["dice", "dice"]}, "metrics: expected each once"),
        ({"smallest_count": 0}, "smallest_count: expected at least 1"),
        ({"min_cases": 4}, "min_cases: expected at least smallest_count"),
        ({"max_change": 0}, "max_change: expected a number above 0"),
        ({"max_change": math.nan}, "max_change: expected a number above 0"),
        ({"max_change": math.inf}, "max_change: expected a number above 0"),
        ({"min_batch": 0}, "min_batch: expected at least 1 and at most min_cases"),
        ({"min_batch": 11}, "min_batch: expected at least 1 and at most min_cases"),
        ({"max_gradient": 0}, "max_gradient: expected a number above 0"),
        ({"overlap_by": ["id", "id"]}, "overlap_by: expected each once"),
        ({"overlap_by": ["name"]}, "overlap_by"),
        ({"max_gradient": math.nan}, "max_gradient: expected a number above 0"),
        ({"max_gradient": math.inf}, "max_gradient: expected a number above 0"),
        ({"min_sites": 2}, "min_sites: expected at least 3"),
        ({"approvers": ["ab" * 31]}, "64 hexadecimal digits"),
        ({"approvers": ["AB" * 32]}, "64 hexadecimal digits"),
        ({"approvers": ["ab" * 32] * 2}, "approvers: expected each once"),
        ({"round_statistics": 1}, "expected bool, found 1"),
    ],
)
def test_a_setting_that_is_wrong_is_named(raw, message) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy(raw)


def test_bounds_of_settings_hold_on_their_other_side() -> None:
    parse_policy({"min_cases": 5})
    parse_policy({"min_cases": 1, "min_batch": 1, "smallest_count": 1})
    parse_policy({"min_batch": 10, "max_gradient": 1e-9})
    parse_policy(
        {"max_change": 1e-9, "markers": [], "metrics": [], "approvers": ["ab" * 32, "cd" * 32]}
    )


@pytest.mark.parametrize(
    ("text", "message"), [(None, "a site needs a policy file"), ("min_cases", "not a TOML file")]
)
def test_a_file_that_is_no_policy_is_named(tmp_path, text, message) -> None:
    path = tmp_path / "policy.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PolicyError, match=message):
        load_policy(path)


def test_a_policy_that_everybody_may_write_is_refused(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(PolicyError, match="chmod o-w"):
        load_policy(path)
    path.chmod(0o664)
    load_policy(path)


def test_too_few_cases_take_no_part() -> None:
    enforce_cases(SitePolicy(), 10)
    enforce_counts(SitePolicy(), counts(10))
    for refuse in (enforce_cases, lambda p, n: enforce_counts(p, counts(n)),
                   lambda p, n: enforce_update(p, update(counts(n)), counts(n), UNCHANGED),
                   lambda p, n: enforce_gradient(p, gradient(5), counts(n), 0.0, None)):  # fmt: skip
        with pytest.raises(PolicyError, match=r"9 training cases.*at least 10"):
            refuse(SitePolicy(), 9)


@pytest.mark.parametrize(
    ("cases", "found", "sent"),
    [
        (40, (20, 5), (20, 5)),  # 15 without a label
        (40, (20, 4), (20, 0)),
        (40, (20, 1), (20, 0)),
        (40, (36, 4), (35, 0)),  # 4 are left over: lowered until it is 5
        (40, (39, 1), (35, 0)),
        (40, (35, 5), (35, 5)),  # nothing is left over
        (40, (40, 0), (40, 0)),
        (40, (30, 5), (30, 5)),  # 5 without a label
        (40, (31, 5), (30, 5)),  # 4 without a label
        (10, (6, 4), (5, 0)),
        (10, (5, 5), (5, 5)),
        (10, (5, 4), (5, 0)),
        (11, (5, 5), (0, 5)),  # 1 is left over, and 5 cannot be lowered without being small
        (40, (4, 4), (0, 0)),
    ],
)
def test_small_counts_are_not_to_be_had(cases, found, sent) -> None:
    assert enforce_counts(SitePolicy(), counts(cases, idh=found)).classes["idh"] == sent


@pytest.mark.parametrize(
    ("masks", "sent"), [(4, 0), (5, 5), (35, 35), (36, 35), (39, 35), (40, 40), (0, 0)]
)
def test_so_are_counts_of_outlines(masks, sent) -> None:
    assert enforce_counts(SitePolicy(), counts(40, masks)).masks == sent


made = st.integers(1, 60).flatmap(
    lambda cases: st.tuples(
        st.just(cases), st.integers(0, cases), st.lists(st.integers(0, cases), min_size=3, max_size=3)
    )
).filter(lambda drawn: sum(drawn[2]) <= drawn[0])  # fmt: skip


@given(made, st.integers(1, 12))
def test_every_count_that_leaves_and_its_rest_is_none_or_large(drawn, least) -> None:
    cases, masks, grades = drawn
    true = counts(max(cases, least), masks, grade=tuple(grades))
    policy = SitePolicy(min_cases=least, min_batch=1, smallest_count=least)
    sent = enforce_counts(policy, true)
    assert sent.cases == true.cases
    for count in (sent.masks, *sent.classes["grade"], *sent.labelled.values()):
        assert count == 0 or count >= least
        assert count == sent.cases or sent.cases - count >= least
    for had, kept in zip(true.classes["grade"], sent.classes["grade"], strict=True):
        assert kept <= had  # never a label that is not there
    assert enforce_counts(policy, sent) == sent
    with TemporaryDirectory() as folder:
        path = Path(folder) / "counts"
        save_counts(path, CountsResponse("run", "0" * 32, "north", sent))
        asked = CountsRequest("run", "0" * 32)
        assert check_counts("north", asked, path, FederationConfig()) == sent


@given(made)
def test_a_policy_that_hides_nothing_changes_nothing(drawn) -> None:
    cases, masks, grades = drawn
    true = counts(cases, masks, grade=tuple(grades))
    assert enforce_counts(OPEN, true) == true
    sent = update(true, grade=Stat(2.0, 3.0), skipped=Stat(1, 1))
    kept = enforce_update(OPEN, sent, true, NormOfChange(1.0, 1.0)).stats
    assert ("grade" in kept) == (sum(grades) > 0)
    assert all(kept[k] == sent.stats[k] for k in kept)


def test_a_marker_that_is_not_shared_is_unknown_to_training(make_prepared) -> None:
    policy = dataclasses.replace(OPEN, markers=("grade",))
    whole = [
        make_prepared("one", {"idh": "mutant", "grade": "4"}),
        make_prepared("two", {"mgmt": "methylated"}),
    ]
    hidden = hide_labels(policy, whole)
    assert [dict(c.case.labels.values) for c in hidden] == [{"grade": "4"}, {}]
    assert hidden[0].case.labels["idh"] is UNKNOWN
    assert hidden[0].image is whole[0].image
    assert hidden[0].case.id == "one"
    assert whole[0].case.labels["idh"] == "mutant"
    assert count_cases(hidden).classes["idh"] == (0, 0)
    assert enforce_counts(policy, count_cases(whole)) == enforce_counts(policy, count_cases(hidden))
    assert hide_labels(OPEN, whole) == tuple(whole)


def test_labels_of_which_the_count_does_not_leave_are_not_trained_on(make_prepared) -> None:
    """A gradient of them would reveal that they exist; four of a class are too few, five are not."""
    policy = SitePolicy()
    whole = [
        make_prepared(f"c{i}", {"idh": "mutant" if i < 5 else "wildtype", "mgmt": "methylated"})
        for i in range(9)
    ]
    hidden = hide_labels(policy, whole)
    assert count_cases(hidden).classes["idh"] == (0, 5)
    assert count_cases(hidden).classes["mgmt"] == (0, 9)
    assert count_cases(hidden).masks == 9
    few = [make_prepared(f"m{i}", {}, mask=i < 4) for i in range(9)]
    assert count_cases(few).masks == 4
    assert count_cases(hide_labels(policy, few)).masks == 0
    five = [make_prepared(f"m{i}", {}, mask=i < 5) for i in range(9)]
    assert count_cases(hide_labels(policy, five)).masks == 5


def test_an_update_counts_labels_as_the_counts_did() -> None:
    true = counts(40, 38, idh=(36, 4), grade=(20, 3, 17))
    sent = enforce_update(SitePolicy(), update(true), true, UNCHANGED)
    assert sent.labelled == enforce_counts(SitePolicy(), true).labelled
    assert (sent.labelled["idh"], sent.labelled["grade"], sent.labelled["mask"]) == (35, 35, 35)


def test_no_statistic_tells_a_count_that_is_hidden() -> None:
    true = counts(40, 38, idh=(36, 4), mgmt=(4, 3), grade=(20, 20, 0))
    stats = {"mask": Stat(19.0, 38.0), "dice": Stat(30.0, 38.0), "idh": Stat(20.0, 40.0), "mgmt": Stat(3.0, 7.0),
             "grade": Stat(10.0, 40.0), "skipped": Stat(1, 1), "patient_7": Stat(1, 1)}  # fmt: skip
    kept = enforce_update(SitePolicy(), update(true, **stats), true, UNCHANGED).stats
    assert set(kept) == {"mask", "dice", "idh", "grade", "skipped"}
    assert (kept["mask"].weight, kept["dice"].weight, kept["idh"].weight) == (35, 35, 35)
    for name in kept:
        assert kept[name].mean == pytest.approx(stats[name].mean)
    assert kept["grade"] == stats["grade"]


@pytest.mark.parametrize(
    ("changed", "left"),
    [({}, {"mask", "dice", "idh", "skipped"}), ({"metrics": ("losses",)}, {"mask", "idh", "skipped"}),
     ({"metrics": ("dice",)}, {"dice", "skipped"}), ({"metrics": ()}, {"skipped"}),
     ({"round_statistics": False}, set()), ({"markers": ("mgmt",)}, {"mask", "dice", "skipped"})],
)  # fmt: skip
def test_only_the_figures_of_the_policy_leave(changed, left, tmp_path) -> None:
    true = counts(40, idh=(20, 20))
    stats = dict.fromkeys(("mask", "dice", "idh", "skipped"), Stat(1.0, 2.0))
    sent = enforce_update(SitePolicy(**changed), update(true, **stats), true, UNCHANGED)
    assert set(sent.stats) == left
    save_update(tmp_path / "update", sent)


def test_too_large_a_change_is_kept_back() -> None:
    true = counts(40)
    policy = SitePolicy(max_change=0.5)
    assert enforce_update(policy, update(true), true, NormOfChange(1.5, 3.0)).tensors
    for change in (1.5 + 1e-9, math.inf, math.nan):
        with pytest.raises(PolicyError, match=r"round 3: the change has norm .*allows 0.5 x"):
            enforce_update(policy, update(true), true, NormOfChange(change, 3.0))
    with pytest.raises(PolicyError):
        enforce_update(policy, update(true), true, NormOfChange(1.0, math.nan))


def test_a_gradient_of_too_few_cases_is_kept_back() -> None:
    """None at all is not too few: the site had no case of this round, and sends none."""
    true = counts(40)
    for cases in (0, 4, 5):
        sent = enforce_gradient(SitePolicy(), gradient(cases), true, 1.0, None)
        assert (sent.cases, len(sent.tensors)) == (cases, int(cases > 0))
    for cases in (1, 3):
        with pytest.raises(
            PolicyError, match=rf"round 3: the gradient is of {cases} cases.*at least 4"
        ):
            enforce_gradient(SitePolicy(), gradient(cases), true, 1.0, None)


class TestRequest:
    """Weights that single out some of a site's patients, under the default policy."""

    own = counts(40, 38, idh=(36, 4), grade=(20, 20, 0))
    sent = enforce_counts(SitePolicy(), own)

    @pytest.mark.parametrize("others", [counts(0), counts(60, idh=(30, 30), grade=(20, 20, 20))])
    def test_one_with_the_counts_of_all_sites_is_worked_on(self, others) -> None:
        """Also where the site is the only one: a class whose count it hid has weight 0."""
        total = self.sent + others
        enforce_request(SitePolicy(), self.own, total.labelled, class_weights(total))

    @pytest.mark.parametrize("task", ["mask", "idh", "grade"])
    def test_one_with_fewer_labels_than_the_site_alone_has_is_refused(self, task) -> None:
        fewer = {**self.sent.labelled, task: self.sent.labelled[task] - 1}
        for labelled in (fewer, {k: n for k, n in fewer.items() if k != task}):
            with pytest.raises(PolicyError, match=f"labels of {task} at all sites"):
                enforce_request(SitePolicy(), self.own, labelled, class_weights(self.sent))

    @pytest.mark.parametrize(
        "weights",
        [(0.0, 2.0, 1.0), (math.nan, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, 1.0), (), (0.333, 1, 1)],
    )
    def test_one_that_leaves_out_a_class_of_the_site_is_refused(self, weights) -> None:
        right = class_weights(self.sent)
        with pytest.raises(PolicyError, match="too little weight to a class of grade"):
            enforce_request(SitePolicy(), self.own, self.sent.labelled, {**right, "grade": weights})
        enforce_request(
            SitePolicy(), self.own, self.sent.labelled, {**right, "grade": (1 / 3, 1 / 3, 0.0)}
        )


def test_too_large_a_gradient_is_kept_back() -> None:
    policy = SitePolicy(max_gradient=2.5)
    assert enforce_gradient(policy, gradient(4), counts(40), 2.5, None).tensors
    for norm in (2.5 + 1e-9, math.inf, math.nan):
        with pytest.raises(PolicyError, match=r"round 3: the gradient has norm .*allows 2.5 "):
            enforce_gradient(policy, gradient(4), counts(40), norm, None)


def test_statistics_of_a_pass_leave_with_its_last_round_alone() -> None:
    """Those of a single round, which is of a few patients, never do."""
    true = counts(40, 38, idh=(36, 4), mgmt=(4, 3))
    one = dataclasses.replace(gradient(5), stats={"idh": Stat(3.0, 5.0)})
    assert enforce_gradient(SitePolicy(), one, true, 1.0, None).stats == {}
    sums = {"mask": Stat(19.0, 38.0), "idh": Stat(20.0, 40.0), "mgmt": Stat(3.0, 7.0),
            "patient_7": Stat(1, 1)}  # fmt: skip
    kept = enforce_gradient(SitePolicy(), one, true, 1.0, PassSums(40, sums)).stats
    assert set(kept) == {"mask", "idh"}
    assert (kept["mask"].weight, kept["idh"].weight) == (35, 35)
    assert kept["idh"].mean == pytest.approx(0.5)


@pytest.mark.parametrize(("cases", "leave"), [(9, False), (10, True)])
def test_statistics_of_a_part_of_a_pass_leave_where_it_has_enough_cases(cases, leave) -> None:
    """A site that was restarted knows a part of the pass only."""
    true = counts(40, idh=(20, 20))
    sums = PassSums(cases, {"idh": Stat(5.0, float(cases))})
    sent = enforce_gradient(SitePolicy(), gradient(4), true, 1.0, sums)
    assert bool(sent.stats) == leave


@pytest.mark.parametrize(
    ("changed", "left"), [({}, {"idh", "skipped"}), ({"metrics": ("dice",)}, {"skipped"}),
                          ({"round_statistics": False}, set()), ({"markers": ()}, {"skipped"})],
)  # fmt: skip
def test_only_the_figures_of_the_policy_leave_after_a_pass(changed, left) -> None:
    sums = PassSums(40, {"idh": Stat(5.0, 40.0), "skipped": Stat(1, 1)})
    true = counts(40, idh=(20, 20))
    sent = enforce_gradient(SitePolicy(**changed), gradient(4), true, 1.0, sums)
    assert set(sent.stats) == left


def drawn(cases: int, loss: float) -> Update:
    return dataclasses.replace(gradient(cases), stats={"mask": Stat(loss, float(cases))})


class TestPassStatistics:
    def test_a_pass_is_one_sum_and_the_next_one_begins_anew(self) -> None:
        site = PassStatistics()
        assert site.add(request(0, 3), drawn(4, 8.0)) is None
        assert site.add(request(1, 3), gradient(0)) is None
        assert site.add(request(2, 3), drawn(6, 7.0)) == PassSums(10, {"mask": Stat(15.0, 10.0)})
        assert site.add(request(3, 3), drawn(4, 1.0)) is None
        assert site.add(request(4, 3), drawn(5, 2.0)) is None
        assert site.add(request(5, 3), drawn(1, 3.0)) == PassSums(10, {"mask": Stat(6.0, 10.0)})

    def test_a_pass_of_one_round_is_complete_at_once(self) -> None:
        assert PassStatistics().add(request(7, 1), drawn(4, 1.0)) == PassSums(
            4, {"mask": Stat(1.0, 4.0)}
        )

    def test_a_repeated_round_counts_once(self) -> None:
        """A server that was killed repeats the rounds after its last commit."""
        site = PassStatistics()
        for number, loss in ((0, 99.0), (1, 99.0), (0, 1.0), (1, 2.0)):
            assert site.add(request(number, 3), drawn(4, loss)) is None
        whole = PassSums(12, {"mask": Stat(6.0, 12.0)})
        assert site.add(request(2, 3), drawn(4, 3.0)) == whole
        assert site.add(request(2, 3), drawn(4, 3.0)) == whole

    def test_a_site_that_was_restarted_knows_what_it_saw(self) -> None:
        assert PassStatistics().add(request(2, 3), drawn(4, 3.0)) == PassSums(
            4, {"mask": Stat(3.0, 4.0)}
        )

    def test_no_gradient_is_kept(self) -> None:
        site, sent = PassStatistics(), drawn(4, 1.0)
        kept = weakref.ref(sent.tensors["w"])
        site.add(request(0, 3), sent)
        del sent
        assert kept() is None


def test_scores_leave_only_where_the_policy_says_so() -> None:
    enforce_scores(SitePolicy())
    with pytest.raises(PolicyError, match=r"no test scores .*; nothing was sent"):
        enforce_scores(SitePolicy(metrics=("losses", "dice")))


@pytest.mark.process
def test_trust_needs_neither_torch_nor_flare() -> None:
    code = (
        "import importlib, pkgutil, sys; from gliofed.federated import governance\n"
        "for m in pkgutil.iter_modules(governance.__path__): importlib.import_module(f'gliofed.federated.governance.{m.name}')\n"
        "print(sorted({'torch', 'nvflare', 'cryptography', 'typer', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_reference_has_every_setting_with_its_default() -> None:
    text = (Path(__file__).parents[1] / "docs/reference/policy.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+ \|$", text, re.M)
    assert rows == [(f.name, json.dumps(f.default)) for f in dataclasses.fields(SitePolicy)]


def test_the_reference_explains_its_example() -> None:
    sent = enforce_counts(SitePolicy(), counts(40, idh=(36, 4)))
    text = (Path(__file__).parents[1] / "docs/reference/policy.md").read_text()
    assert (
        "With 40 cases, 36 wildtype and 4 mutant: {} and {} are sent".format(*sent.classes["idh"])
        in text
    )
