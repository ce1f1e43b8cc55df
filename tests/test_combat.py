"""ComBat by sums is ComBat of the pooled cases."""

import numpy as np
import pytest

from gliofed.radiomics.combat import MIN_KNOWN_CASES, combat_sums, harmonise, shared_effects
from gliofed.radiomics.standardisation import sum_over_sites


def plain_combat(parts, covariates):
    """Feature by feature on pooled cases with a design matrix, then site by site. Johnson 2007."""
    values, x = np.concatenate(parts), np.concatenate(covariates)
    site = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    z, back = np.full_like(values, np.nan), []
    for f in range(values.shape[1]):
        known = np.isfinite(values[:, f])
        design = np.column_stack([np.eye(len(parts))[site[known]], x[known]])
        beta = np.linalg.lstsq(design, values[known, f], rcond=None)[0]
        share = design[:, : len(parts)].mean(0)
        level = share @ beta[: len(parts)]
        spread = np.sqrt(np.mean((values[known, f] - design @ beta) ** 2))
        expected = level + x @ beta[len(parts) :]
        z[:, f] = (values[:, f] - expected) / spread
        back.append((expected, spread))
    out = np.full_like(values, np.nan)
    for s in range(len(parts)):
        own = z[site == s]
        columns = [own[np.isfinite(own[:, f]), f] for f in range(own.shape[1])]
        means = np.array([c.mean() for c in columns])
        variances = np.array([c.var(ddof=1) for c in columns])
        m, v = variances.mean(), variances.var(ddof=1)
        a, b = (2 * v + m**2) / v, (m * v + m**3) / v
        for f, c in enumerate(columns):
            n, gamma, delta = len(c), means[f], variances[f]
            t2, before = means.var(ddof=1), np.inf
            while abs(delta - before) > 1e-13 * delta:
                before = delta
                gamma = (t2 * n * means[f] + delta * means.mean()) / (t2 * n + delta)
                delta = (b + 0.5 * ((c - gamma) ** 2).sum()) / (n / 2 + a - 1)
            expected, spread = back[f]
            rows = site == s
            out[rows, f] = (own[:, f] - gamma) / np.sqrt(delta) * spread + expected[rows]
    return np.split(out, np.cumsum([len(p) for p in parts])[:-1])


def made_up(sizes, features=7, covariates=2, unknown=0.0, seed=0):
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=(covariates, features))
    parts, people = [], []
    for place, n in enumerate(sizes):
        x = rng.normal(size=(n, covariates))
        noise = rng.gamma(4, 0.25 * (1 + place), size=features) * rng.normal(size=(n, features))
        part = 1000 + 5 * place * rng.normal(size=features) + x @ effect + noise
        part[rng.random(part.shape) < unknown] = np.nan
        parts.append(part)
        people.append(x)
    return parts, people


def by_sites(parts, people):
    shared = shared_effects(
        sum_over_sites(combat_sums(p, x) for p, x in zip(parts, people, strict=True))
    )
    return [harmonise(p, x, shared) for p, x in zip(parts, people, strict=True)], shared


@pytest.mark.parametrize("unknown", [0.0, 0.1])
@pytest.mark.parametrize("covariates", [0, 2])
def test_sites_together_compute_what_a_plain_combat_does_on_the_pooled_cases(
    covariates, unknown
) -> None:
    parts, people = made_up((8, 11, 20), covariates=covariates, unknown=unknown)
    found, _ = by_sites(parts, people)
    for own, expected, before in zip(found, plain_combat(parts, people), parts, strict=True):
        assert own == pytest.approx(expected, abs=1e-9 * 1000, nan_ok=True)
        assert np.isnan(own).tolist() == np.isnan(before).tolist()
        assert np.nanmax(np.abs(own - before)) > 1


def test_what_a_site_is_off_by_goes_and_what_covariates_explain_stays() -> None:
    rng = np.random.default_rng(3)
    ages = [rng.normal(size=(n, 1)) + place for place, n in enumerate((300, 400))]
    slope = rng.normal(size=(1, 12))
    true = [a @ slope + rng.normal(size=(len(a), 12)) for a in ages]
    seen = [true[0], 4 + 3 * rng.normal(size=12) + 2.5 * true[1]]
    found, shared = by_sites(seen, ages)
    for own, age in zip(found, ages, strict=True):
        rest = own - age @ shared.slopes.T
        assert rest.mean(0) == pytest.approx(shared.level, abs=0.3)
        assert rest.std(0) == pytest.approx(shared.spread, rel=0.1)
    assert np.abs(seen[1].mean(0) - seen[0].mean(0)).max() > 4


def test_a_site_of_one_case_is_left_as_it_is_and_changes_no_other() -> None:
    parts, people = made_up((8, MIN_KNOWN_CASES - 1, MIN_KNOWN_CASES))
    found, shared = by_sites(parts, people)
    without, same = by_sites([parts[0], parts[2]], [people[0], people[2]])
    assert found[1].tolist() == parts[1].tolist()
    assert found[0].tolist() == without[0].tolist()
    assert shared.spread.tolist() == same.spread.tolist()
    assert np.abs(found[2] - parts[2]).min() > 0


def test_a_constant_feature_and_one_nobody_knows_are_left_as_they_are() -> None:
    parts, people = made_up((8, 9))
    for part in parts:
        part[:, 1], part[:, 2] = 0.1, np.nan
    found, shared = by_sites(parts, people)
    assert shared.spread[[1, 2]].tolist() == [0, 0]
    assert all((own[:, 1] == 0.1).all() and np.isnan(own[:, 2]).all() for own in found)
    apart, _ = by_sites([np.delete(p, [1, 2], 1) for p in parts], people)
    assert np.delete(found[0], [1, 2], 1) == pytest.approx(apart[0], abs=1e-9)


def test_an_unseen_site_is_corrected_from_its_own_unlabelled_cases() -> None:
    parts, people = made_up((30, 40, 25), covariates=1, seed=5)
    _, shared = by_sites(parts[:2], people[:2])
    new = harmonise(parts[2], people[2], shared)
    rest = new - shared.expected(people[2])
    before = parts[2] - shared.expected(people[2])
    assert np.abs(rest.mean(0)).max() < 0.3 * np.abs(before.mean(0)).max()
    moved = harmonise(parts[2] + 100, people[2], shared)
    assert moved.std(0) == pytest.approx(new.std(0), rel=0.2)


def test_one_feature_has_nothing_to_learn_a_site_from() -> None:
    parts, people = made_up((8, 9), features=1)
    found, _ = by_sites(parts, people)
    assert [f.tolist() for f in found] == [p.tolist() for p in parts]


def test_cases_that_are_all_alike_do_not_divide_by_zero() -> None:
    parts, people = made_up((8, 9), covariates=0)
    parts[1][:] = parts[1][0]
    found, _ = by_sites(parts, people)
    assert np.isfinite(found[1]).all()


def test_of_a_sites_location_nothing_leaves_but_what_it_adds_to_the_whole() -> None:
    (part, *_), (x, *_) = made_up((8, 9))
    own, moved = combat_sums(part, x), combat_sums(part + 64.0, x)
    assert moved.y == pytest.approx(own.y + 64 * 8)
    for name in ("known", "x", "xx"):
        assert getattr(moved, name).tolist() == getattr(own, name).tolist()
    assert moved.yy == pytest.approx(own.yy)
    assert moved.xy == pytest.approx(own.xy)
