"""Every way to aggregate sites: its value by hand, and how far one or few sites can move it."""

import dataclasses
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from test_fed import NONCE
from test_strategies import HEAD, MODEL, TRUNK, UNSEEN, Server, counts, gradient, moved, no_change

from gliofed.errors import StudyError
from gliofed.federated.aggregation.robust import (
    AGGREGATIONS,
    MEAN,
    aggregation_named,
    dropped,
    geometric_weights,
)
from gliofed.federated.messages import save_update
from gliofed.federated.strategies.table import STRATEGIES
from gliofed.federation_config import FederationConfig
from gliofed.types import Update

ROBUST = [a for a in AGGREGATIONS.values() if a is not MEAN]
LOCAL = [k for k, s in STRATEGIES.items() if s.takes_steps]


def aggregate(row, values, weights=None):
    values = torch.tensor(values, dtype=torch.float64)
    weights = torch.ones(len(values), dtype=torch.float64) if weights is None else weights
    if row.reweigh is not None:
        weights = row.reweigh(values @ values.T, weights)
    return row.combine(values, weights)


def rows(ids=lambda a: a.id):
    return pytest.mark.parametrize("row", AGGREGATIONS.values(), ids=ids)


@rows()
def test_every_row_has_a_source_and_is_found_by_its_id(row) -> None:
    assert row.source
    assert aggregation_named(row.id) is row


def test_every_row_is_a_setting() -> None:
    settings = get_type_hints(FederationConfig)["aggregation"]
    assert set(get_args(settings)) == set(AGGREGATIONS)
    with pytest.raises(StudyError, match=r"aggregation: 'krum' is none of .*'median'"):
        aggregation_named("krum")


@rows()
def test_equal_sites_give_their_value_and_one_gives_its_own_bits(row) -> None:
    value = torch.randn(7, generator=torch.Generator().manual_seed(1)).double()
    for sites in (1, 2, 3, 7):
        found = aggregate(row, [value.tolist()] * sites)
        assert torch.equal(found, value) if sites == 1 else torch.allclose(found, value)


@rows()
def test_the_order_of_sites_and_a_common_shift_do_not_matter(row) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(5, 4, generator=generator).double()
    found = aggregate(row, values.tolist())
    assert torch.allclose(aggregate(row, values.flip(0).tolist()), found, atol=1e-9)
    products = values - 3.0  # as changes from other weights
    shifted = aggregate(row, products.tolist())
    assert torch.allclose(shifted, found - 3.0, atol=1e-6)


@rows()
def test_two_sites_have_no_majority(row) -> None:
    assert aggregate(row, [[0.0, 1.0], [4.0, -1.0]]).tolist() == pytest.approx([2.0, 0.0])


def test_values_by_hand() -> None:
    values = [[1.0], [2.0], [3.0], [5.0], [100.0]]
    found = {k: aggregate(a, values).item() for k, a in AGGREGATIONS.items()}
    assert found["mean"] == pytest.approx(22.2)
    assert found["trimmed_mean"] == pytest.approx(10 / 3)  # one is dropped at either end
    assert found["median"] == 3
    assert found["geometric_median"] == pytest.approx(3, abs=1e-3)  # on a line: the median
    four = [[1.0], [2.0], [4.0], [100.0]]
    assert aggregate(AGGREGATIONS["median"], four).item() == 3
    assert [dropped(m) for m in (10, 11)] == [2, 3]


def test_the_geometric_median_is_where_the_distances_add_up_to_least() -> None:
    """An equilateral triangle: its centre; with a weight of half or more: that site."""
    triangle = [[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]]
    row = AGGREGATIONS["geometric_median"]
    assert aggregate(row, triangle).tolist() == pytest.approx([0.5, np.sqrt(3) / 6], abs=1e-6)
    weights = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
    assert aggregate(row, triangle, weights).tolist() == pytest.approx([0, 0], abs=1e-4)
    zeros = geometric_weights(torch.zeros(3, 3, dtype=torch.float64), torch.ones(3).double())
    assert zeros.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("row", ROBUST, ids=lambda a: a.id)
@pytest.mark.parametrize("sites", [3, 7])
def test_one_site_cannot_move_a_robust_value_beyond_the_honest_ones(row, sites) -> None:
    honest = torch.randn(sites - 1, 6, generator=torch.Generator().manual_seed(3)).double()
    for attack in (1e6, -1e6):
        found = aggregate(row, [*honest.tolist(), [attack] * 6])
        assert (found - honest.mean(0)).abs().max() < 4
    assert aggregate(MEAN, [*honest.tolist(), [1e6] * 6]).min() > 1e5


@pytest.mark.parametrize("aggregation", [a.id for a in ROBUST])
@pytest.mark.parametrize("method", LOCAL)
def test_averaging_methods_use_it(method, aggregation, tiny_study, tmp_path) -> None:
    """Two honest sites move by 0.1 and 0.11, the third by -5; the head has one site with labels."""
    server = Server(
        tiny_study, method, tmp_path, sites=("a", "b", "c"), aggregation=aggregation,
        server_lr=0.1 if method == "fedadam" else 1.0,
    )  # fmt: skip
    plain = Server(
        tiny_study, method, tmp_path, sites=("a", "b", "c"),
        server_lr=0.1 if method == "fedadam" else 1.0,
    )  # fmt: skip
    for one in (server, plain):
        for site, by, idh in (("a", 0.1, 10), ("b", 0.11, 0), ("c", -5.0, 0)):
            one.add(moved(by), site, idh=idh, extra=no_change() if one.row.extra else None)
        one.half.step(0, ["a", "b", "c"])
    change = server.value(TRUNK)[0] - 3
    assert 0 < change <= 0.11 + 1e-3
    assert plain.value(TRUNK)[0] < 3
    if method == "label_aware":
        assert server.value(HEAD) == pytest.approx([0.6])
        assert torch.equal(server.half.weights[UNSEEN], MODEL[UNSEEN])


def test_scaffolds_control_variate_is_aggregated_alike(tiny_study, tmp_path) -> None:
    server = Server(tiny_study, "scaffold", tmp_path, sites=("a", "b", "c"), aggregation="median")
    for site, change in (("a", 0.3), ("b", 0.6), ("c", 900.0)):
        control = {k: torch.full_like(t, change) for k, t in MODEL.items()}
        server.add(moved(0.1), site, extra={"control": control})
    server.half.step(0, ["a", "b", "c"])
    assert server.half.state["control"][TRUNK].flatten().tolist() == pytest.approx([0.6, 0.6])


def synchronous(study, folder, aggregation, everyone, state=None):
    train = dataclasses.replace(study.train, clip=1e6)
    study = dataclasses.replace(study, train=train)
    return Server(study, "synchronous", folder, everyone, state, aggregation=aggregation)


EVERYONE = {"a": counts(10, 10, idh=5), "b": counts(20, 10), "c": counts(10, 10, idh=10)}


def send(server, folder, site, cases, tensors) -> None:
    one = Update("run", 0, NONCE, site, tensors, cases, {}, {})
    path = folder / f"sent-{next(server.numbers)}"
    save_update(path, one)
    server.half.add(one, path)


@pytest.mark.parametrize("aggregation", [a.id for a in ROBUST])
def test_a_synchronous_step_outvotes_one_of_three(aggregation, tiny_study, tmp_path) -> None:
    """Each has the gradient 1 a case in the trunk; c turns its own round, 50 times as long."""
    server = synchronous(tiny_study, tmp_path, aggregation, EVERYONE)
    for site, cases, by in (("a", 2, 1.0), ("b", 3, 1.0), ("c", 2, -50.0)):
        send(server, tmp_path, site, cases, gradient((by * cases, 0.0), by * cases, by * cases))
    server.half.step(0, ["a", "b", "c"])
    moment = server.half.state["exp_avg"][TRUNK].flatten().tolist()
    # 2 batches of 40 cases: 20 rows of a gradient of 1 each
    assert moment == pytest.approx([0.1 * 20, 0], rel=1e-3)
    # of the head's two voters none has a majority: 2.5 rows of 1 x 10 / 5 and 5 of -50
    assert server.half.state["exp_avg"][HEAD].item() < 0


def test_a_running_mean_is_of_each_sites_own_gradients(tiny_study, tmp_path) -> None:
    """0.9 of the mean before and 0.1 of the new one; a site without a case keeps its mean."""
    server = synchronous(tiny_study, tmp_path, "median", EVERYONE)
    for site, by in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        send(server, tmp_path, site, 2, gradient((2 * by, 0.0)))
    server.half.step(0, ["a", "b", "c"])
    again = synchronous(tiny_study, tmp_path, "median", EVERYONE, server.half.state)
    for one in (server, again):  # a resumed run has the means of the commit
        send(one, tmp_path, "b", 1, gradient((12.0, 0.0)))
        one.half.step(1, ["a", "b"])
        means = {s: one.half.state[f"mean@{s}"][TRUNK][0, 0].item() for s in "abc"}
        assert means == pytest.approx({"a": 1.0, "b": 0.9 * 2 + 0.1 * 12, "c": 3.0})
    # the median of a and b is 2, times 15 rows of a batch, times 40 of 30 cases: c is missing
    first = 0.1 * 2 * 20
    moment = again.half.state["exp_avg"][TRUNK][0, 0].item()
    assert moment == pytest.approx(0.9 * first + 0.1 * 2 * 20)


def test_with_the_mean_no_running_mean_is_kept(tiny_study, tmp_path) -> None:
    server = Server(tiny_study, "synchronous", tmp_path)
    server.add(gradient((1.0, 1.0)))
    server.half.step(0, ["a", "b"])
    assert set(server.half.state) == {"exp_avg", "exp_avg_sq", "step"}
