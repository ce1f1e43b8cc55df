"""What a hospital reads before it approves a study: what will run there, and what will leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gliofed.federated.governance.policy import SitePolicy, enforce_counts
from gliofed.markers import BY_ID, MARKERS, Marker
from gliofed.runtime.printable import printable
from gliofed.study import Study

if TYPE_CHECKING:  # they bring torch
    from gliofed.federated.label_counts import LabelCounts

_FLOAT_BYTES = 4


def what_runs(study: Study, parameters: int) -> tuple[str, ...]:
    """What the study does at a site, a line each.

    parameters: of its network (`deployment.approval.network_size`).
    """
    train, loss = study.train, study.loss
    learned = [BY_ID[m].title for m, weight in loss.markers.items() if weight > 0]
    learned = (["the tumour's outline"] if loss.mask > 0 else []) + learned
    spacing = " x ".join(s if isinstance(s, str) else f"{s:g}" for s in study.grid.spacing_mm)
    return (
        f"Study {printable(study.name)}, digest {study.digest}.",
        f"A network of preset {printable(study.net.preset)}, {parameters:,} parameters, is trained "
        "on this site's cases, on this site's machine.",
        f"It learns: {', '.join(learned)}.",
        f"Rounds: {train.rounds}, each of {_count(train.local_epochs, 'pass', 'passes')} over the "
        f"cases, {train.batch} at a time; all of it {_count(len(study.seeds), 'time', 'times')}.",
        f"Scans are brought to {spacing} mm voxels and shown in pieces of "
        f"{' x '.join(map(str, study.grid.patch))} voxels.",
        "No code comes with a study: it chooses among settings of the gliofed installed here.",
    )


def what_leaves(
    study: Study, policy: SitePolicy, cases: LabelCounts | None, parameters: int
) -> tuple[str, ...]:
    """What will be sent under the policy, a line each, with the counts as they will be sent.

    cases: the site's training cases, counted after `hide_labels`; None where they are not counted
    yet, and what is counted is said in place of numbers. Raises PolicyError where the site has
    too few to take part.
    """
    sent = None if cases is None else enforce_counts(policy, cases)
    least = policy.smallest_count
    hidden = f" (any from 1 to {least - 1} is sent as 0)" if least > 1 else ""
    numbers = f": {sent.cases}, and {sent.masks}" if sent else ""
    size = parameters * _FLOAT_BYTES / 2**20
    return (
        "Before the first round, and when a study goes on, the number of training cases and of "
        f"those with an outline{numbers}; and counts of labels{hidden}:",
        *(_marker_line(m, policy, sent.classes[m.id] if sent else None) for m in MARKERS),
        f"Every round, {study.train.rounds} in all: the network's weights, {parameters:,} numbers "
        f"({size:.1f} MiB){_moments(study)}, and the numbers of cases above.",
        _statistics_line(policy),
        _scores_line(policy),
        f"A round whose change is larger than {policy.max_change:g} x the model's own norm is kept "
        "back.",
        "Where something fails: the step, the kind of error and the number of a report that stays "
        "here.",
        "The lead's server sees this site's weights singly. Weights are no scans, and may still "
        "betray something of them. No scan, mask, name, id or path is sent.",
    )


def _moments(study: Study) -> str:
    if study.federation.moments == "own":
        return ""
    return ", twice as many numbers on the mean size of this site's gradients"


def _marker_line(marker: Marker, policy: SitePolicy, counts: tuple[int, ...] | None) -> str:
    if marker.id not in policy.markers:
        return f"{marker.title}: nothing; this site's policy keeps its labels out of training."
    classes = f"{marker.title} ({', '.join(marker.classes)})"
    numbers = ", ".join(map(str, counts)) if counts is not None else "the number of each"
    return f"{classes}: {numbers}."


def _statistics_line(policy: SitePolicy) -> str:
    names = {"losses": "each task's training loss", "dice": "training Dice"}
    kept = [text for metric, text in names.items() if metric in policy.metrics]
    if not policy.round_statistics:
        return "No training statistic: this site's policy keeps them."
    return "With them, as sums over all cases: " + ", ".join([*kept, "steps that failed"]) + "."


def _scores_line(policy: SitePolicy) -> str:
    if "scores" not in policy.metrics:
        return "No test scores: this site's policy keeps them."
    return (
        f"Test scores, of at least {policy.smallest_count} test cases, if the study tests here. To "
        "calibrate the model: over cases kept back, counts of how likely it took their true class "
        "to be, and sums that follow from these; nothing of a marker with so few cases of a class."
    )


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
