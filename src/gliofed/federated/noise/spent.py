"""What a run with `[privacy]` has cost the patients of each site, as far as the server knows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from gliofed.federated.noise.accounting import epsilon_of, mechanism_of
from gliofed.study import Study
from gliofed.types import RoundPoint


def spent_by_site(study: Study, points: Sequence[RoundPoint]) -> Mapping[str, float]:
    """Training site to the epsilon, at the study's delta, of its rounds that were merged.

    Empty without `[privacy]`. A site's own ledger also counts rounds whose response came too late.
    """
    if study.privacy is None:
        return {}
    whole = mechanism_of(study)
    merged = {s: sum(p.merged.get(s, 0) for p in points) for s in study.data.train}
    return {
        site: epsilon_of((dataclasses.replace(whole, rounds=rounds),), study.privacy.delta)
        for site, rounds in merged.items()
    }


def noise_lines(study: Study, spent: Mapping[str, float]) -> tuple[str, ...]:
    """The privacy of the federated model in sentences; none without `[privacy]`.

    spent: as of `spent_by_site`.
    """
    privacy = study.privacy
    if privacy is None:
        return ()
    whole = mechanism_of(study)
    bound = epsilon_of((whole,), privacy.delta)
    sums = (
        "the sums over sites" if study.federation.privacy != "none" else "all gradients of a site"
    )
    return (
        f"The gradient of each patient was clipped to norm {privacy.clip:g}, and noise of "
        f"{whole.noise:.3g} times that was added to their sum.",
        f"Epsilon at delta {privacy.delta:g} for each training patient: {spent_text(spent)}; at "
        f"most {bound:.3g} for all {whole.rounds} rounds. It bounds what {sums} and the model "
        "reveal, and not what test scores, calibration, or that a site took part do.",
    )


def spent_text(spent: Mapping[str, float]) -> str:
    """One figure a site."""
    return ", ".join(f"{site} {epsilon:.3g}" for site, epsilon in spent.items())
