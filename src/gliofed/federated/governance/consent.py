"""The text shown before a study is approved: what runs at the site, and what leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gliofed.federated.governance.noise_text import leaves_with_noise
from gliofed.federated.governance.policy import SitePolicy, enforce_counts
from gliofed.markers import BY_ID, MARKERS, Marker
from gliofed.runtime.printable import printable
from gliofed.study import FUSION, Study

if TYPE_CHECKING:  # imports torch
    from gliofed.federated.label_counts import LabelCounts

_NO_CODE: Final = (
    "A study contains no code. It selects settings of the gliofed that is installed here."
)
_FAILURE: Final = (
    "After a failure: the step, the kind of error and the number of a report. The report itself "
    "stays here."
)
_VALUE_BYTES: Final = {"none": 4, "bfloat16": 2, "int8": 1}


def what_runs(study: Study, parameters: int) -> tuple[str, ...]:
    """What the study runs at a site, one line each.

    parameters: number of weights of its network (`deployment.approval.network_size`).
    """
    if study.federation.validates:
        return _validation(study, parameters)
    train = study.train
    return (
        f"Study {printable(study.name)}, digest {study.digest}.",
        f"A network of preset {printable(study.net.preset)} with {parameters:,} parameters is "
        "trained on this site's cases, on this site's machine.",
        _tasks_line(study),
        f"Training: {_count(train.epochs, 'pass', 'passes')} over the cases, in batches of "
        f"{train.batch} cases of all sites together. {_rounds(study)} "
        f"Training runs: {len(study.seeds)}, one for each seed.",
        f"{_voxels(study)}; the network reads patches of "
        f"{' x '.join(map(str, study.grid.patch))} voxels.",
        *_init_lines(study),
        *_continues_lines(study),
        *_fusion_lines(study),
        _sharing_line(study),
        "Without a new approval, the lead may change only how long a round waits for sites "
        "(deadline) and how many it needs (quorum).",
        _NO_CODE,
    )


def _validation(study: Study, parameters: int) -> tuple[str, ...]:
    """What a validation runs at a site."""
    model = study.federation.validates
    return (
        f"Study {printable(study.name)}, digest {study.digest}.",
        f"A given model is tested on this site's cases, on this site's machine: model {model}, of "
        f"one or several networks of preset {printable(study.net.preset)} with {parameters:,} "
        "parameters each.",
        "No training takes place, and the model is not changed. A model with another id is "
        "refused.",
        _tasks_line(study),
        f"{_voxels(study)}, as the model needs them.",
        "This site receives the model, with its calibration and card, and keeps it. Its scores on "
        "all cases of this site also stay here, without suppressed counts.",
        "Without a new approval, the lead may change only how long the test waits for a site "
        "(deadline) and how many sites it needs to begin (quorum).",
        _NO_CODE,
    )


def _tasks_line(study: Study) -> str:
    loss = study.loss
    tasks = ["tumour segmentation"] if loss.mask > 0 else []
    tasks += [BY_ID[m].title for m, weight in loss.markers.items() if weight > 0]
    return f"Tasks: {', '.join(tasks)}."


def _voxels(study: Study) -> str:
    spacing = " x ".join(s if isinstance(s, str) else f"{s:g}" for s in study.grid.spacing_mm)
    return f"Scans are resampled to {spacing} mm voxels"


def what_leaves(
    study: Study, policy: SitePolicy, cases: LabelCounts | None, parameters: int
) -> tuple[str, ...]:
    """What is sent under the policy, one line each, with the counts as they are sent.

    parameters: number of the weights that are trained. cases: label counts of the site's training
    cases after `hide_labels`. None: not counted yet; the lines then name what is counted, without
    numbers. Raises PolicyError where the site has fewer cases than `min_cases`.
    """
    if study.federation.validates:
        return _leaves_validation(study, policy)
    if study.privacy is not None:
        return leaves_with_noise(study, policy, parameters, _FAILURE, _overlap_lines(study, policy))
    sent = None if cases is None else enforce_counts(policy, cases)
    least = policy.smallest_count
    hidden = (
        f" (a count from 1 to {least - 1} is sent as 0, and labels of such a class are not used)"
        if least > 1
        else ""
    )
    numbers = f" ({sent.cases} and {sent.masks})" if sent else ""
    return (
        *_overlap_lines(study, policy),
        "Before the first round, and when a study is resumed: the number of training cases and of "
        f"cases with a mask{numbers}, and these counts of labels{hidden}:",
        *(_marker_line(m, policy, sent.classes[m.id] if sent else None) for m in MARKERS),
        *_round_lines(study, policy, parameters),
        _statistics_line(study, policy),
        _scores_line(policy),
        *_fusion_sums_lines(study, policy),
        _largest_line(study, policy),
        _FAILURE,
        _separate_line(study, policy),
        "Updates contain no scans, but may reveal information on the training cases. No scan, "
        "mask, name, id or path is sent.",
    )


def _separate_line(study: Study, policy: SitePolicy) -> str:
    """Whether the server receives the updates of this site by themselves."""
    if study.federation.privacy == "none":
        return "The lead's server receives this site's updates separately, not only their sum."
    return (
        "The counts of training cases and the gradients are masked: the lead's server learns their "
        f"sums over at least {max(3, policy.min_sites)} sites (min_sites), and not those of this "
        "site. Test scores and the sums after the last round are not masked. Whoever has the keys "
        "of the other sites' kits can compute this site's part; the lead made the kits."
    )


def _leaves_validation(study: Study, policy: SitePolicy) -> tuple[str, ...]:
    """What a validation sends."""
    return (
        *_overlap_lines(study, policy),
        _validation_scores_line(policy),
        _FAILURE,
        "The lead's server receives this site's sums separately, not only the total. No weights, "
        "gradient, prediction, scan, mask, name, id or path is sent.",
    )


def _validation_scores_line(policy: SitePolicy) -> str:
    if "scores" not in policy.metrics:
        return (
            "No scores: this site's policy excludes them. This site tests the model for itself "
            "alone."
        )
    least = policy.smallest_count
    return (
        f"The numbers of cases and patients, and scores as sums over at least {least} cases. For "
        "calibration: counts by the predicted probability of the true class, and sums derived from "
        f"them; nothing for a marker with fewer than {least} cases of a class."
    )


def _continues_lines(study: Study) -> tuple[str, ...]:
    finished = study.federation.continues
    if not finished:
        return ()
    return (
        f"The training continues the finished run {finished}: of the {study.train.epochs} passes, "
        "those that it made are not repeated.",
    )


def _init_lines(study: Study) -> tuple[str, ...]:
    """The model that the training starts from, and where the lead has it from."""
    init = study.init
    if init is None:
        return ()
    origin = printable(init.origin) or "not stated"
    frozen = f" Not trained, nor sent: {', '.join(init.frozen)}." if init.frozen else ""
    return (
        f"The training starts from a model, id {init.digest}; its origin, as the lead states it: "
        f"{origin}. The server has it, and sends its weights in the first round. Learning rate: "
        f"{study.optimisation.lr:g}.{frozen}",
    )


def _sharing_line(study: Study) -> str:
    if not study.federation.share_model:
        return "The finished model stays on the server; no site receives it."
    return (
        "At the end each site of the study receives the finished model, with its calibration and "
        "card, to keep, and tests it on its own cases; these scores stay here."
    )


def _rounds(study: Study) -> str:
    federation = study.federation
    if federation.synchronous:
        return "Every batch is a round."
    return f"Method: {federation.summary}."


def _overlap_lines(study: Study, policy: SitePolicy) -> tuple[str, ...]:
    """What leaves for the comparison of patients between sites."""
    by = [b for b in study.data.overlap_by if b in policy.overlap_by]
    validates = bool(study.federation.validates)
    if study.federation.overlap == "ignore":
        return ("Nothing to find patients who are at other sites, too: the study ignores them.",)
    if not by:
        effect = "counted twice" if validates else "in training here and in a test elsewhere"
        return (
            "Nothing to find patients who are at other sites, too: this site's policy excludes it "
            f"(overlap_by). Such patients may be {effect}.",
        )
    ways = {"id": "ids", "image": "whole-brain scans"}
    kept = (
        "the site then leaves out those that another site uses"
        if study.federation.overlap == "drop"
        else "the study stops if there is one"
    )
    return (
        f"Before the {'test' if validates else 'count'}, and when a study is resumed: the number "
        "of patients, and keyed tokens "
        f"of their {' and '.join(ways[b] for b in by)}, to find those who are at other sites, too. "
        "The server compares tokens. It does not have the key, which is in the sites' kits only, "
        "and learns which tokens are equal.",
        "This site alone receives which of its own patients are at other sites, and at how many; "
        f"{kept}.",
    )


def _round_lines(study: Study, policy: SitePolicy, parameters: int) -> tuple[str, ...]:
    """What leaves in each round."""
    method, compress = study.federation.method, study.federation.compress
    secret = study.federation.privacy != "none"
    size = parameters * (8 if secret else _VALUE_BYTES[compress]) / 2**20
    numbers = f"{parameters:,} numbers ({size:.1f} MiB)"
    if secret:
        return (
            f"In each round: one masked gradient, {numbers}, and with it, masked, the counts above "
            "and the number of cases that it is computed from: none, or at least "
            f"{policy.min_batch} (min_batch).",
            "Random keys, shares of them for other sites, and what opens the sum of a round.",
        )
    if study.federation.synchronous:
        return (
            f"In each round for which this site has cases: one gradient, {numbers}, computed from "
            f"at least {policy.min_batch} training cases (min_batch), and the number of these "
            "cases.",
            "A gradient of so few patients can reveal their labels, and may reveal parts of their "
            "scans. A larger min_batch reveals less.",
        )
    also = " and as many for its control variate" if method == "scaffold" else ""
    return (f"Every round: the network's weights, {numbers}{also}, and the counts above.",)


def _largest_line(study: Study, policy: SitePolicy) -> str:
    if study.federation.synchronous:
        return f"A gradient of norm above {policy.max_gradient:g} is not sent."
    return (
        f"An update whose change is larger than {policy.max_change:g} x the model's own norm is "
        "not sent."
    )


def _marker_line(marker: Marker, policy: SitePolicy, counts: tuple[int, ...] | None) -> str:
    if marker.id not in policy.markers:
        return f"{marker.title}: nothing. This site's policy excludes its labels from training."
    classes = f"{marker.title} ({', '.join(marker.classes)})"
    numbers = ", ".join(map(str, counts)) if counts is not None else "cases of each class"
    return f"{classes}: {numbers}."


def _statistics_line(study: Study, policy: SitePolicy) -> str:
    names = {"losses": "each task's training loss", "dice": "training Dice"}
    sent = [text for metric, text in names.items() if metric in policy.metrics]
    if not policy.round_statistics:
        return "No training statistics: this site's policy excludes them."
    if study.federation.synchronous:
        return f"Once a pass, as sums over all cases: {', '.join(sent)}."
    figures = ", ".join([*sent, "gradient norms", "steps that failed"])
    return f"Every round, as sums over all cases: {figures}."


def _scores_line(policy: SitePolicy) -> str:
    if "scores" not in policy.metrics:
        return "No test scores: this site's policy excludes them."
    return (
        f"Test scores over at least {policy.smallest_count} test cases, if the study tests here. "
        "For calibration, over held-out cases: counts by the predicted probability of the true "
        f"class, and sums derived from them; nothing for a marker with fewer than "
        f"{policy.smallest_count} cases of a class."
    )


def _fusion_lines(study: Study) -> tuple[str, ...]:
    """What a fusion runs at a site."""
    if FUSION not in study.models:
        return ()
    return (
        "After the last round, the network predicts the mask of each training and held-out case. "
        "Features of these masks, and age and sex, are joined to the network's probability of IDH "
        "by regressions that all training sites fit together; they become part of the model.",
    )


def _fusion_sums_lines(study: Study, policy: SitePolicy) -> tuple[str, ...]:
    """What leaves for a fusion."""
    if FUSION not in study.models:
        return ()
    if "scores" not in policy.metrics:
        return ("Nothing to join age and sex to the model: this site's policy excludes it.",)
    return (
        f"To join age and sex to the model: sums over at least {policy.smallest_count} cases of "
        "age, sex and features of predicted masks, of training cases; sums of regressions on "
        "them and on held-out cases, at coefficients that the server sends; and counts by the "
        "joined probability, as for calibration. With few cases, a server that asks for other "
        "coefficients than those of the fit could compute single ages and features from them. No "
        "name or id is with them.",
    )


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
