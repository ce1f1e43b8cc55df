"""What leaves a site in a study with `[privacy]`, in the text that is shown before an approval."""

from __future__ import annotations

from collections.abc import Sequence

from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.noise.accounting import epsilon_of, mechanism_of
from gliofed.federated.noise.shares import sharing_sites
from gliofed.study import Study


def leaves_with_noise(
    study: Study,
    policy: SitePolicy,
    parameters: int,
    failure: str,
    overlap: Sequence[str],
) -> tuple[str, ...]:
    """What is sent, one line each.

    parameters: number of the weights that are trained. failure, overlap: lines on what leaves after
    a failure, and for the comparison of patients.
    """
    privacy = study.privacy
    assert privacy is not None, "callers ask for it"
    mechanism, sites = mechanism_of(study), sharing_sites(study)
    epsilon = epsilon_of((mechanism,), privacy.delta)
    against = "against everyone who sees them, the server included."
    if sites > 1:
        against = (
            f"against the server, which sees sums of at least {sites} sites. Each adds a share of "
            "the noise: sites that give theirs away to the server make it smaller."
        )
    deviation = mechanism.noise * privacy.clip / sites**0.5
    return (
        *overlap,
        "Before the first round, and when a study is resumed: that this site takes part. No count "
        "of its cases or labels is sent.",
        f"In each of {mechanism.rounds} rounds: one {'masked ' if sites > 1 else ''}gradient of "
        f"{parameters:,} numbers, with noise. Each patient of this site is in it with a "
        f"probability of {mechanism.rate:.3g}; the gradient of each patient is clipped to norm "
        f"{privacy.clip:g}, and noise of standard deviation {deviation:.4g} is added to each "
        "number of their sum.",
        f"All these gradients together: epsilon {epsilon:.3g} at delta {privacy.delta:g} for each "
        f"patient of this site, {against}",
        f"This site's policy allows {policy.privacy_epsilon:g} at delta {policy.privacy_delta:g} "
        "over all studies with noise (privacy_epsilon).",
        "No training statistics.",
        "Not covered by epsilon: which patients are at other sites, test scores, statistics for "
        "calibration, and that this site took part.",
        _scores_line(policy),
        failure,
        "No scan, mask, name, id or path is sent.",
    )


def _scores_line(policy: SitePolicy) -> str:
    if "scores" not in policy.metrics:
        return "No test scores: this site's policy excludes them."
    return (
        f"Test scores and statistics for calibration without noise, over at least "
        f"{policy.smallest_count} cases that were not trained on."
    )
