"""The text shown before a study is approved: what runs at the site, and what leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gliofed.federated.governance.policy import SitePolicy, enforce_counts
from gliofed.markers import BY_ID, MARKERS, Marker
from gliofed.runtime.printable import printable
from gliofed.study import Study

if TYPE_CHECKING:  # imports torch
    from gliofed.federated.label_counts import LabelCounts

_FLOAT_BYTES = 4


def what_runs(study: Study, parameters: int) -> tuple[str, ...]:
    """What the study runs at a site, one line each.

    parameters: number of weights of its network (`deployment.approval.network_size`).
    """
    train, loss = study.train, study.loss
    tasks = ["tumour segmentation"] if loss.mask > 0 else []
    tasks += [BY_ID[m].title for m, weight in loss.markers.items() if weight > 0]
    spacing = " x ".join(s if isinstance(s, str) else f"{s:g}" for s in study.grid.spacing_mm)
    return (
        f"Study {printable(study.name)}, digest {study.digest}.",
        f"A network of preset {printable(study.net.preset)} with {parameters:,} parameters is "
        "trained on this site's cases, on this site's machine.",
        f"Tasks: {', '.join(tasks)}.",
        f"Rounds: {train.rounds}, each of {_count(train.local_epochs, 'pass', 'passes')} over the "
        f"cases in batches of {train.batch}. Training runs: {len(study.seeds)}, one for each seed.",
        f"Scans are resampled to {spacing} mm voxels; the network reads patches of "
        f"{' x '.join(map(str, study.grid.patch))} voxels.",
        "A study contains no code. It selects settings of the gliofed that is installed here.",
    )


def what_leaves(
    study: Study, policy: SitePolicy, cases: LabelCounts | None, parameters: int
) -> tuple[str, ...]:
    """What is sent under the policy, one line each, with the counts as they are sent.

    cases: label counts of the site's training cases after `hide_labels`. None: not counted yet;
    the lines then name what is counted, without numbers. Raises PolicyError where the site has
    fewer cases than `min_cases`.
    """
    sent = None if cases is None else enforce_counts(policy, cases)
    least = policy.smallest_count
    hidden = f" (a count from 1 to {least - 1} is sent as 0)" if least > 1 else ""
    numbers = f" ({sent.cases} and {sent.masks})" if sent else ""
    size = parameters * _FLOAT_BYTES / 2**20
    return (
        "Before the first round, and when a study is resumed: the number of training cases and of "
        f"cases with a mask{numbers}, and these counts of labels{hidden}:",
        *(_marker_line(m, policy, sent.classes[m.id] if sent else None) for m in MARKERS),
        f"Every round, {study.train.rounds} in all: the network's weights, {parameters:,} numbers "
        f"({size:.1f} MiB){_moments(study)}, and the counts above.",
        _statistics_line(policy),
        _scores_line(policy),
        f"An update whose change is larger than {policy.max_change:g} x the model's own norm is "
        "not sent.",
        "After a failure: the step, the kind of error and the number of a report. The report "
        "itself stays here.",
        "The lead's server receives this site's weights separately, not only their average. "
        "Weights contain no scans, but may reveal information on the training cases. No scan, "
        "mask, name, id or path is sent.",
    )


def _moments(study: Study) -> str:
    if study.federation.moments == "own":
        return ""
    return ", the optimiser's averages of gradients and of their squares (twice as many numbers)"


def _marker_line(marker: Marker, policy: SitePolicy, counts: tuple[int, ...] | None) -> str:
    if marker.id not in policy.markers:
        return f"{marker.title}: nothing. This site's policy excludes its labels from training."
    classes = f"{marker.title} ({', '.join(marker.classes)})"
    numbers = ", ".join(map(str, counts)) if counts is not None else "cases of each class"
    return f"{classes}: {numbers}."


def _statistics_line(policy: SitePolicy) -> str:
    names = {"losses": "each task's training loss", "dice": "training Dice"}
    sent = [text for metric, text in names.items() if metric in policy.metrics]
    if not policy.round_statistics:
        return "No training statistics: this site's policy excludes them."
    return "Every round, as sums over all cases: " + ", ".join([*sent, "steps that failed"]) + "."


def _scores_line(policy: SitePolicy) -> str:
    if "scores" not in policy.metrics:
        return "No test scores: this site's policy excludes them."
    return (
        f"Test scores over at least {policy.smallest_count} test cases, if the study tests here. "
        "For calibration, over held-out cases: counts by the predicted probability of the true "
        f"class, and sums derived from them; nothing for a marker with fewer than "
        f"{policy.smallest_count} cases of a class."
    )


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
