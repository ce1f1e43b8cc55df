"""A hospital's policy: what it lets leave, whatever a study or a server asks.

    policy = load_policy(kit / "gliofed/policy.toml")
    cases = hide_labels(policy, cases)
    counts = enforce_counts(policy, count_cases(cases))

The file is the hospital's own. Every function here is pure, and is called before anything is
packed: what comes back may leave, and where nothing may, PolicyError says why.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gliofed.errors import PolicyError, StudyError
from gliofed.markers import BY_ID
from gliofed.settings import build
from gliofed.types import Case, Labels, Stat

if TYPE_CHECKING:  # they bring torch, of which a policy needs nothing
    from gliofed.data.store import PreparedCase
    from gliofed.federated.label_counts import LabelCounts
    from gliofed.types import Update

Metric = Literal["losses", "dice", "scores"]
_MASK: Final = "mask"
_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SitePolicy:
    """What may leave. The defaults are for partners bound by an agreement, not for publishing.

    min_cases: with fewer training cases the site takes no part; a model of a few patients is
    nearly theirs. smallest_count: no count of cases from 1 to below it leaves, nor one from which
    such a count follows (`enforce_counts`). The default, 5, is what PEDSnet asks inside its
    network; the US Centers for Medicare and Medicaid Services ask 11 of what is published, which
    is what `gliofed cohort` keeps to. markers: whose labels may be used; all others are unknown
    to training. round_statistics: whether sums of training statistics leave with each round.
    metrics: which figures may leave: "losses" (by task) and "dice" of training samples, "scores"
    of test cases. max_change: largest L2 norm of a round's change, as a share of the model's own
    norm. approvers: public keys (64 hexadecimal digits) of those who may approve a study; with
    none, an approval needs no signature.
    """

    min_cases: int = 10
    smallest_count: int = 5
    markers: tuple[str, ...] = tuple(BY_ID)
    round_statistics: bool = True
    metrics: tuple[Metric, ...] = ("losses", "dice", "scores")
    max_change: float = 2.0
    approvers: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the settings in canonical JSON: another digest, another policy."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


DEFAULT_POLICY_TOML: Final = """\
# What this hospital lets leave, whatever a study or a server asks. The file is yours: nobody
# else changes it, and gliofed reads it anew whenever a study starts. A change after a study
# was approved asks for approval again. Left out, a line has the value it has here.

# Take no part with fewer training cases than this. A model trained on a few patients is nearly
# a copy of what they look like.
min_cases = 10

# No count of cases from 1 to below this number leaves; it is sent as 0. A count from which such
# a number could be reckoned is made smaller. 5 suits partners bound by an agreement; 11 is what
# the US Centers for Medicare and Medicaid Services ask of tables that are published.
smallest_count = 5

# Markers whose labels may be used. A marker left out here is unknown to training: its labels
# influence nothing that leaves.
markers = ["idh", "codel_1p19q", "mgmt", "grade"]

# Whether training statistics (sums over all cases) leave with each round. Without them the lead
# cannot see whether training goes well.
round_statistics = true

# Which figures may leave: "losses" and "dice" of training samples, "scores" of test cases.
metrics = ["losses", "dice", "scores"]

# The largest change of one round (L2 norm), as a share of the model's own norm. A larger one is
# kept back: something went wrong, or the change says too much of too few cases.
max_change = 2.0

# Public keys of those who may approve a study. Make a key with: gliofed approve --new-key KEY
# Without any, whoever can use this kit can approve.
approvers = []
"""


def load_policy(path: Path) -> SitePolicy:
    """Read and check a policy file. Raises PolicyError: unreadable, or a setting that is wrong."""
    try:
        others = path.stat().st_mode & stat.S_IWOTH
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(
            f"{path}: cannot be read ({error.strerror}); every site needs a policy"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{path}: not a TOML file: {error}") from None
    if others:
        raise PolicyError(f"{path}: everybody may write to the policy; run: chmod o-w {path}")
    return parse_policy(raw, str(path))


def parse_policy(raw: Mapping[str, object], where: str = "policy") -> SitePolicy:
    """A checked policy from plain TOML values; `where` opens each error. Raises PolicyError."""
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
            f"this site has {cases} training cases, and its policy asks for at least "
            f"{policy.min_cases} (min_cases); nothing was sent"
        )


def enforce_counts(policy: SitePolicy, counts: LabelCounts) -> LabelCounts:
    """The counts that may leave.

    Of each task, every count from 1 to below `smallest_count` becomes 0. Where the cases left
    over (hidden ones and those without a label) would then be so few, the largest count is
    lowered until they are not. So every count that leaves, and what it leaves over of the
    cases, is 0 or at least `smallest_count`. Raises PolicyError: too few cases to take part.
    """
    enforce_cases(policy, counts.cases)
    (masks,) = _shown(policy, counts.cases, (counts.masks,))
    classes = {
        marker: _shown(policy, counts.cases, found)
        if marker in policy.markers
        else (0,) * len(found)
        for marker, found in counts.classes.items()
    }
    return dataclasses.replace(counts, masks=masks, classes=classes)


def enforce_update(
    policy: SitePolicy, update: Update, counts: LabelCounts, change: float, model: float
) -> Update:
    """The update that may leave: labelled counts those of `enforce_counts`, statistics cut down.

    counts: of the cases it was trained on, as counted. change: L2 norm of its weights minus the
    round's; model: norm of the round's. A task's sums shrink as its count does, so that their
    mean stays and their weight tells no more than the count. Raises PolicyError: too few cases,
    or too large a change.
    """
    shown = enforce_counts(policy, counts)
    if not change <= policy.max_change * model:  # also refuses NaN
        raise PolicyError(
            f"round {update.round}: the change has norm {change:.4g}, and this site's policy "
            f"allows {policy.max_change:g} x the model's own, {model:.4g} (max_change); nothing "
            "was sent"
        )
    shares = {
        task: shown.labelled[task] / count for task, count in counts.labelled.items() if count
    }
    stats = {
        name: kept
        for name, stat in update.stats.items()
        if (kept := _kept(policy, name, stat, shares)) is not None
    }
    return dataclasses.replace(update, cases=shown.cases, labelled=shown.labelled, stats=stats)


def enforce_scores(policy: SitePolicy, cases: int) -> None:
    """Raise PolicyError where scores over `cases` test cases may not leave."""
    if "scores" not in policy.metrics:
        raise PolicyError('this site\'s policy lets no test scores leave (metrics has no "scores")')
    if cases < policy.smallest_count:
        raise PolicyError(
            f"scores of {cases} test cases may not leave: this site's policy asks for "
            f"{policy.smallest_count} (smallest_count)"
        )


def hide_labels(policy: SitePolicy, cases: Sequence[PreparedCase]) -> tuple[PreparedCase, ...]:
    """The cases with every label unknown that the policy keeps out of training."""
    return tuple(dataclasses.replace(c, case=_hidden(policy, c)) for c in cases)


def _hidden(policy: SitePolicy, prepared: PreparedCase) -> Case:
    case = prepared.case
    kept = {m: case.labels[m] for m in case.labels if m in policy.markers}
    return dataclasses.replace(case, labels=Labels(kept))


def _shown(policy: SitePolicy, cases: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    """One task's counts by class, none of them or of what is left over too small."""
    least = policy.smallest_count
    shown = [n if n >= least else 0 for n in counts]
    while 0 < (left := cases - sum(shown)) < least and any(shown):
        place = shown.index(max(shown))
        lowered = shown[place] - (least - left)
        shown[place] = lowered if lowered >= least else 0
    return tuple(shown)


def _kept(policy: SitePolicy, name: str, stat: Stat, shares: Mapping[str, float]) -> Stat | None:
    """What of one statistic may leave; None for nothing, and for one that no rule is about."""
    if not policy.round_statistics:
        return None
    if name == "skipped":  # of steps, not of patients
        return stat
    metric, task = ("dice", _MASK) if name == "dice" else ("losses", name)
    share = shares.get(task, 0.0)
    if metric not in policy.metrics or share == 0:
        return None
    return Stat(stat.sum * share, stat.weight * share)


def _check(policy: SitePolicy, where: str) -> None:
    """Settings that are well formed but at odds with each other or with sense."""
    strange = [m for m in policy.markers if m not in BY_ID]
    near = difflib.get_close_matches(strange[0], BY_ID, n=1, cutoff=0.0)[0] if strange else ""
    odd = [k for k in policy.approvers if not _KEY.fullmatch(k)]
    faults = (
        (policy.smallest_count < 1, "smallest_count: at least 1, which hides nothing"),
        (
            policy.min_cases < policy.smallest_count,
            "min_cases: at least smallest_count, since the number of cases is a count that leaves",
        ),
        (bool(strange), f"markers: unknown marker {strange[:1]}; the nearest one is {near!r}"),
        (len(set(policy.markers)) < len(policy.markers), "markers: each once"),
        (len(set(policy.metrics)) < len(policy.metrics), "metrics: each once"),
        (not 0 < policy.max_change < float("inf"), "max_change: above 0"),
        (
            bool(odd),
            "approvers: each is the 64 hexadecimal digits of a public key, as gliofed "
            "approve --new-key KEY prints them",
        ),
        (len(set(policy.approvers)) < len(policy.approvers), "approvers: each once"),
    )
    for fault, message in faults:
        if fault:
            raise PolicyError(f"{where}: {message}")
