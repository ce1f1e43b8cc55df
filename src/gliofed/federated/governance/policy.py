"""A site's policy: limits on what leaves it. No study and no server can change them.

    policy = load_policy(kit / "gliofed/policy.toml")
    cases = hide_labels(policy, cases)
    counts = enforce_counts(policy, count_cases(cases))

The policy file belongs to the hospital. Every function here is pure and is called before a message
is packed. It returns what may leave, or raises PolicyError with the reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gliofed.errors import PolicyError, StudyError
from gliofed.federated.linkage.server import MatchKind
from gliofed.federated.noise.ledger import Budget
from gliofed.markers import BY_ID
from gliofed.settings import build
from gliofed.types import Labels, Stat

if TYPE_CHECKING:  # these import torch, which a policy does not need
    from gliofed.data.store import PreparedCase
    from gliofed.federated.label_counts import LabelCounts
    from gliofed.federated.pass_statistics import PassSums
    from gliofed.study import Study
    from gliofed.types import Update

Metric = Literal["losses", "dice", "scores"]
_MASK: Final = "mask"
_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SitePolicy:
    """What may leave. The defaults suit partners bound by an agreement, not publication.

    min_cases: with fewer training cases the site does not take part, since a model trained on a few
    patients may reproduce them. min_batch: with "synchronous", fewest cases behind one gradient; a
    site whose part of a batch is smaller takes part in fewer rounds, with more cases in each.
    smallest_count: counts of cases from 1 to below it do not leave, nor counts from which such a
    count follows (`enforce_counts`). The default, 5, is the threshold of PEDSnet inside its
    network. For published tables the US Centers for Medicare and Medicaid Services require 11,
    which `gliofed cohort` uses. markers: whose labels may be used; all others are unknown to
    training. round_statistics: whether sums of training statistics leave: with each round, or with
    "synchronous" once a pass. metrics: which figures may leave: "losses" (by task) and "dice" of
    training samples, "scores" of test cases. overlap_by: ways in which the site's patients may be
    compared with those of other sites, by keyed tokens; with none, no token leaves. max_change:
    largest L2 norm of a round's change, as a share of the model's own norm. max_gradient: largest
    L2 norm of a gradient, with "synchronous". approvers: public keys (64 hexadecimal digits) of
    those who may approve a study; with none, an approval needs no signature.
    """

    min_cases: int = 10
    min_batch: int = 4
    smallest_count: int = 5
    markers: tuple[str, ...] = tuple(BY_ID)
    round_statistics: bool = True
    metrics: tuple[Metric, ...] = ("losses", "dice", "scores")
    overlap_by: tuple[MatchKind, ...] = ("id", "image")
    max_change: float = 2.0
    max_gradient: float = 1000.0
    min_sites: int = 3
    privacy_epsilon: float = 10.0
    privacy_delta: float = 1e-5
    require_privacy: bool = False
    approvers: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the settings in canonical JSON; it identifies the policy."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_policy(path: Path) -> SitePolicy:
    """Read and check a policy file. Raises PolicyError: unreadable, or with a wrong setting."""
    try:
        writable_by_others = path.stat().st_mode & stat.S_IWOTH
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(
            f"{path}: cannot be read ({error.strerror}); a site needs a policy file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{path}: not a TOML file: {error}") from None
    if writable_by_others:
        raise PolicyError(f"{path}: every user may write to the policy; run: chmod o-w {path}")
    return parse_policy(raw, str(path))


def parse_policy(raw: Mapping[str, object], where: str = "policy") -> SitePolicy:
    """A checked policy from plain TOML values. Raises PolicyError; `where` starts its message."""
    try:
        policy = build(SitePolicy, raw, where)
    except StudyError as error:
        raise PolicyError(str(error)) from None
    _check(policy, where)
    return policy


def enforce_cases(policy: SitePolicy, cases: int) -> None:
    """Raise PolicyError where the site has too few training cases to take part."""
    if cases < policy.min_cases:
        raise PolicyError(
            f"this site has {cases} training cases; its policy requires at least "
            f"{policy.min_cases} (min_cases); nothing was sent"
        )


def budget_of(policy: SitePolicy) -> Budget:
    """What studies with `[privacy]` may cost one patient."""
    return Budget(policy.privacy_epsilon, policy.privacy_delta)


def enforce_private(policy: SitePolicy, study: Study) -> None:
    """Raise PolicyError where the policy requires `[privacy]` of a training, and it has none."""
    if policy.require_privacy and study.privacy is None and not study.federation.validates:
        raise PolicyError(
            f"study {study.name!r} adds no noise to what leaves, and this site's policy requires "
            "it (require_privacy); nothing was sent. Ask the lead for a study with [privacy]"
        )


def enforce_counts(policy: SitePolicy, counts: LabelCounts) -> LabelCounts:
    """The counts that may leave.

    For each task, a count from 1 to below `smallest_count` becomes 0. The remainder are cases
    with a suppressed count and cases without a label. If it is from 1 to below `smallest_count`,
    the largest count is lowered until it is not. So every count that leaves, and the remainder,
    is 0 or at least `smallest_count`. Raises PolicyError: fewer cases than `min_cases`.
    """
    enforce_cases(policy, counts.cases)
    (masks,) = _suppressed(policy, counts.cases, (counts.masks,))
    classes = {
        marker: _suppressed(policy, counts.cases, by_class)
        if marker in policy.markers
        else (0,) * len(by_class)
        for marker, by_class in counts.classes.items()
    }
    return dataclasses.replace(counts, masks=masks, classes=classes)


@dataclass(frozen=True)
class NormOfChange:
    """L2 norms. change: of the update's weights minus those of the round's model. model: of the
    round's model."""

    change: float
    model: float


def enforce_update(
    policy: SitePolicy, update: Update, counts: LabelCounts, size: NormOfChange
) -> Update:
    """The update that may leave, with the counts of `enforce_counts` and the permitted statistics.

    counts: of its training cases, before suppression. A task's sums are scaled by the ratio of its
    counts: their mean is unchanged, and their weight reveals no more than the count. Raises
    PolicyError: too few cases, or too large a change.
    """
    permitted = enforce_counts(policy, counts)
    if not size.change <= policy.max_change * size.model:  # also refuses NaN
        raise PolicyError(
            f"round {update.round}: the change has norm {size.change:.4g}; this site's policy "
            f"allows {policy.max_change:g} x the model's own, {size.model:.4g} (max_change); "
            "nothing was sent"
        )
    return dataclasses.replace(
        update,
        cases=permitted.cases,
        labelled=permitted.labelled,
        stats=_permitted_stats(policy, update.stats, counts),
    )


def enforce_gradient(
    policy: SitePolicy,
    update: Update,
    counts: LabelCounts,
    norm: float,
    sums: PassSums | None,
) -> Update:
    """The gradient that may leave, with the statistics of a pass that it completes.

    counts: of all training cases of the site, before suppression. norm: of the gradient. sums: of
    the pass, None before its last round. Those of fewer than `min_cases` cases do not leave. Raises
    PolicyError: fewer cases than `min_batch`, too few cases at the site, or too large a gradient.
    """
    enforce_cases(policy, counts.cases)
    if 0 < update.cases < policy.min_batch:
        raise PolicyError(
            f"round {update.round}: the gradient is of {update.cases} cases; this site's policy "
            f"requires at least {policy.min_batch} (min_batch); nothing was sent"
        )
    if not norm <= policy.max_gradient:  # also refuses NaN
        raise PolicyError(
            f"round {update.round}: the gradient has norm {norm:.4g}; this site's policy allows "
            f"{policy.max_gradient:g} (max_gradient); nothing was sent"
        )
    complete = sums is not None and sums.cases >= policy.min_cases
    stats = _permitted_stats(policy, sums.stats, counts) if sums and complete else {}
    return dataclasses.replace(update, stats=stats)


def enforce_request(
    policy: SitePolicy,
    counts: LabelCounts,
    labelled: Mapping[str, int],
    class_weights: Mapping[str, Sequence[float]],
) -> None:
    """Raise PolicyError where a training request singles out some of the site's cases by weights.

    counts: of all training cases of the site, before suppression. labelled, class_weights: of the
    request. Those of all sites together include this site's counts as they were sent; with others,
    a gradient over many cases could be that of a few.
    """
    sent = enforce_counts(policy, counts)
    for task, count in sent.labelled.items():
        if labelled.get(task, 0) < count:
            raise PolicyError(
                f"the request counts {labelled.get(task, 0)} labels of {task} at all sites, and "
                f"this site alone has {count}; nothing was sent"
            )
    for marker, by_class in sent.classes.items():
        weights = class_weights.get(marker, ())
        least = (1 - 1e-6) / len(by_class)  # a class with all cases of its marker weighs no less
        complete = len(weights) == len(by_class)
        if any(by_class) and not (
            complete and all(w >= least for n, w in zip(by_class, weights, strict=True) if n)
        ):
            raise PolicyError(
                f"the request gives too little weight to a class of {marker} that this site has "
                "cases of; nothing was sent"
            )


def _permitted_stats(
    policy: SitePolicy, stats: Mapping[str, Stat], counts: LabelCounts
) -> dict[str, Stat]:
    """The statistics that may leave, of training on the cases that `counts` counts."""
    permitted = enforce_counts(policy, counts)
    shares = {
        task: permitted.labelled[task] / count for task, count in counts.labelled.items() if count
    }
    return {
        name: scaled
        for name, stat in stats.items()
        if (scaled := _permitted_stat(policy, name, stat, shares)) is not None
    }


def enforce_scores(policy: SitePolicy) -> None:
    """Raise PolicyError where neither test scores nor statistics for calibration may leave.

    Those of few cases are hidden one by one (`suppress_small_counts`, `CalibrationCases`).
    """
    if "scores" not in policy.metrics:
        raise PolicyError(
            'this site\'s policy permits no test scores (metrics has no "scores"); nothing was sent'
        )


def hide_labels(
    policy: SitePolicy, cases: Sequence[PreparedCase], private: bool = False
) -> tuple[PreparedCase, ...]:
    """The cases as training may use them.

    private: whether `[privacy]` protects each patient. No case is then treated by how many others
    there are, and only labels of markers that the policy does not list become unknown.

    Labels of markers that the policy does not list become unknown. So do those of a class with
    fewer than `smallest_count` cases, and masks where there are so few: their count does not leave,
    and a gradient or the weights of a head would reveal it.
    """
    classes = Counter(c for case in cases for c in case.case.labels.values.items())
    allowed = {
        (marker, name)
        for (marker, name), n in classes.items()
        if marker in policy.markers and (private or n >= policy.smallest_count)
    }
    masks = private or sum(c.lesion is not None for c in cases) >= policy.smallest_count
    return tuple(_hidden(c, allowed, masks) for c in cases)


def _hidden(prepared: PreparedCase, allowed: Set[tuple[str, str]], masks: bool) -> PreparedCase:
    labels = Labels({m: v for m, v in prepared.case.labels.values.items() if (m, v) in allowed})
    case = dataclasses.replace(prepared.case, labels=labels)
    if masks:
        return dataclasses.replace(prepared, case=case)
    return dataclasses.replace(prepared, case=case, mask=None, lesion=None)


def _suppressed(policy: SitePolicy, cases: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    """One task's counts by class; neither a count nor the remainder is small."""
    least = policy.smallest_count
    kept = [n if n >= least else 0 for n in counts]
    while 0 < (remainder := cases - sum(kept)) < least and any(kept):
        largest = kept.index(max(kept))
        lowered = kept[largest] - (least - remainder)
        kept[largest] = lowered if lowered >= least else 0
    return tuple(kept)


def _permitted_stat(
    policy: SitePolicy, name: str, stat: Stat, shares: Mapping[str, float]
) -> Stat | None:
    """The statistic as it may leave, or None. A statistic without a rule does not leave."""
    if not policy.round_statistics:
        return None
    if name in ("skipped", "gradient_norm"):  # of steps, not of patients
        return stat
    metric, task = ("dice", _MASK) if name == "dice" else ("losses", name)
    share = shares.get(task, 0.0)
    if metric not in policy.metrics or share == 0:
        return None
    return Stat(stat.sum * share, stat.weight * share)


def _check(policy: SitePolicy, where: str) -> None:
    """Raise PolicyError where settings contradict each other or are out of range."""
    unknown = [m for m in policy.markers if m not in BY_ID]
    near = difflib.get_close_matches(unknown[0], BY_ID, n=1, cutoff=0.0)[0] if unknown else ""
    malformed = [k for k in policy.approvers if not _KEY.fullmatch(k)]
    faults = (
        (policy.smallest_count < 1, "smallest_count: expected at least 1 (1 suppresses nothing)"),
        (
            policy.min_cases < policy.smallest_count,
            "min_cases: expected at least smallest_count: the number of cases leaves, too",
        ),
        (
            not 1 <= policy.min_batch <= policy.min_cases,
            "min_batch: expected at least 1 and at most min_cases",
        ),
        (bool(unknown), f"markers: unknown marker {unknown[:1]}; the nearest one is {near!r}"),
        (len(set(policy.markers)) < len(policy.markers), "markers: expected each once"),
        (len(set(policy.metrics)) < len(policy.metrics), "metrics: expected each once"),
        (len(set(policy.overlap_by)) < len(policy.overlap_by), "overlap_by: expected each once"),
        (not 0 < policy.max_change < float("inf"), "max_change: expected a number above 0"),
        (not 0 < policy.max_gradient < float("inf"), "max_gradient: expected a number above 0"),
        (policy.min_sites < 3, "min_sites: expected at least 3"),
        (not 0 < policy.privacy_epsilon < float("inf"), "privacy_epsilon: expected above 0"),
        (not 0 < policy.privacy_delta < 1, "privacy_delta: expected above 0 and below 1"),
        (
            bool(malformed),
            "approvers: expected the 64 hexadecimal digits of a public key, as printed by gliofed "
            "approve --new-key KEY",
        ),
        (len(set(policy.approvers)) < len(policy.approvers), "approvers: expected each once"),
    )
    for fault, message in faults:
        if fault:
            raise PolicyError(f"{where}: {message}")
