"""The settings of a federation in a study: `[federation]`, and which contradict each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

OPERATIONAL: Final = ("quorum", "deadline")
"""Settings of `[federation]` that only decide for whom a round waits, and how long. They enter
neither the digest nor an approval: a run continues when the lead changes them."""

LARGEST_SUM: Final = 2.0**22
"""Largest absolute value of a sum of gradients with `privacy` = "secure-sum"."""


@dataclass(frozen=True)
class FederationConfig:
    """The federated method, and which updates are refused.

    method: a row of `gliofed.federated.strategies.table.STRATEGIES`. With "synchronous" a round is
    one step on the joint batch of all sites. With the others, sites train for `local_epochs` passes
    over their own cases, or for `local_steps` steps where that is above 0, between two rounds; a
    site's batch is its share of `train.batch`
    (`gliofed.federated.label_counts.share_of_batch`).
    server_lr: learning rate of the server's optimiser with "fedavgm" and "fedadam"; with the other
    methods that average, the part of the way to the mean of the sites' models (1: all of it).
    proximal: weight of the pull towards the round's model with "fedprox". commit: rounds between
    two commits with "synchronous"; the others commit every round. compress: of gradients, with
    "synchronous"; "int32" with secret sums.
    aggregation: of the sites' updates, a row of
    `gliofed.federated.aggregation.robust.AGGREGATIONS`. clip_ratio, refuse_ratio: the size of a
    site's last updates over the size that is usual, above which an update is scaled down, or
    refused (`gliofed.federated.update_bound`). leave_out_after: refused updates in a row after
    which a site is left out of the run; 0: never.
    max_norm_ratio: an update is refused if the L2 norm of its change is more than this many times
    the norm of the round's model. max_gradient: a gradient of a larger L2 norm is refused; those of
    a network in training are mostly between 1 and 100. max_cases: the largest case count that a
    site may report. quorum: updates that must pass for a round to count. deadline: seconds that a
    site on another machine has for a response; a later one is left out of the round. overlap: what
    to do with a patient found at two sites of a federation: "drop" the cases at all sites but the
    first, an external one first; "refuse" the study; or "ignore": do not compare patients.
    share_model: whether each site of a federation receives the finished model. continues: id of a
    finished run of a federation, at whose last round this one begins; "": none. validates: id of a
    given model that the sites test, and train nothing. privacy: what the server learns of one
    site, a row of `gliofed.federated.privacy.table.MECHANISMS`.
    """

    method: str = "synchronous"
    local_epochs: int = 1
    local_steps: int = 0
    server_lr: float = 1.0
    proximal: float = 0.01
    commit: int = 20
    compress: Literal["none", "bfloat16", "int8", "int32"] = "none"
    aggregation: Literal["mean", "trimmed_mean", "median", "geometric_median"] = "mean"
    clip_ratio: float = 5.0
    refuse_ratio: float = 15.0
    leave_out_after: int = 0
    max_norm_ratio: float = 2.0
    max_gradient: float = 1000.0
    max_cases: int = 20_000
    quorum: int = 1
    deadline: float = 3600.0
    overlap: Literal["drop", "refuse", "ignore"] = "drop"
    share_model: bool = False
    continues: str = ""
    validates: str | None = None
    privacy: Literal["none", "secure-sum"] = "none"

    @property
    def synchronous(self) -> bool:
        """Whether a round is one step on the joint batch, to which sites send gradients."""
        return self.method == "synchronous"

    @property
    def summary(self) -> str:
        """The method with the settings that it uses, in some words."""
        secret = "" if self.privacy == "none" else ", summed in secret"
        robust = "" if self.aggregation == "mean" else f", {self.aggregation} of the sites"
        if self.synchronous:
            sent = "" if self.compress == "none" else f", gradients as {self.compress}"
            return f"synchronous, one step a round{sent}{robust}{secret}"
        epochs = f"{self.local_epochs} local {'epoch' if self.local_epochs == 1 else 'epochs'}"
        local = f"{self.local_steps} local steps" if self.local_steps else epochs
        pull = f", proximal weight {self.proximal:g}" if self.method == "fedprox" else ""
        rate = f", server learning rate {self.server_lr:g}"
        return f"{self.method}, {local} a round{rate}{pull}{robust}"


def federation_faults(federation: FederationConfig) -> tuple[tuple[bool, str], ...]:
    """Whether each rule is broken, and the message that says so."""
    return (
        (not 0 < federation.server_lr <= 4, "federation.server_lr: above 0 and at most 4"),
        (
            min(federation.local_epochs, federation.commit) < 1,
            "federation: local_epochs and commit must be at least 1",
        ),
        (federation.local_steps < 0, "federation.local_steps: at least 0 (0: local_epochs counts)"),
        (
            federation.method == "fedadam" and federation.server_lr > 0.1,
            'federation.server_lr: at most 0.1 with "fedadam", where it is about the largest '
            "change of a parameter in a round",
        ),
        (federation.proximal < 0, "federation.proximal: at least 0"),
        (
            not 1 <= federation.clip_ratio <= federation.refuse_ratio,
            "federation: clip_ratio must be at least 1 and at most refuse_ratio",
        ),
        (
            federation.leave_out_after < 0 or federation.leave_out_after == 1,
            "federation.leave_out_after: at least 2 (0: no site is left out)",
        ),
        (
            not re.fullmatch(r"([0-9a-f]{24})?", federation.continues),
            "federation.continues: the id of a run, 24 hexadecimal digits (gliofed extend)",
        ),
        (
            federation.validates is not None
            and not re.fullmatch("[0-9a-f]{64}", federation.validates),
            "federation.validates: the id of a model, 64 hexadecimal digits (gliofed federation "
            "validate)",
        ),
        (
            bool(federation.validates) and (bool(federation.continues) or federation.share_model),
            "federation.validates: nothing is trained; leave out continues and share_model",
        ),
        (
            federation.compress != "none" and not federation.synchronous,
            'federation.compress: of gradients only; it needs method = "synchronous"',
        ),
        (
            federation.compress == "int32" and federation.privacy == "none",
            'federation.compress: "int32" is the form of secret sums, and no smaller than what is '
            'sent without them; give privacy = "secure-sum", or compress = "int8"',
        ),
        *(_secret_sum_faults(federation) if federation.privacy == "secure-sum" else ()),
    )


def _secret_sum_faults(federation: FederationConfig) -> tuple[tuple[bool, str], ...]:
    """What cannot be combined with a sum of which the server sees nothing but the end."""
    default, start = FederationConfig(), 'federation.privacy: "secure-sum" '
    bounds = ("clip_ratio", "refuse_ratio", "leave_out_after")
    return (
        (
            not federation.synchronous,
            start + 'needs method = "synchronous": the other methods weigh the weights of each '
            "site by its own counts, which the server does not have",
        ),
        (
            federation.aggregation != "mean",
            start + 'needs aggregation = "mean": the robust ones compare the updates of the '
            "sites, which the server does not see",
        ),
        (
            federation.compress not in ("none", "int32"),
            start + f'cannot add "{federation.compress}": it has a scale of its own at each site '
            'and value; give compress = "int32", which has one unit for all sites',
        ),
        (
            any(getattr(federation, name) != getattr(default, name) for name in bounds),
            start + f"has no bound of one site by the others: leave out {', '.join(bounds)}; "
            "max_gradient is then checked by each site, and for the sum",
        ),
        (
            bool(federation.validates),
            start + "is for training; a validation trains nothing: leave it out",
        ),
    )


def summed_sites_faults(
    federation: FederationConfig, fewest: int, most: int
) -> tuple[tuple[bool, str], ...]:
    """Whether the number of sites rules out secret sums, and why.

    fewest, most: training sites of a model.
    """
    if federation.privacy != "secure-sum":
        return ()
    return (
        (
            fewest < 3,
            f'federation.privacy: "secure-sum" needs at least 3 training hospitals for each model, '
            f"here {fewest}: of a sum of two, each could compute the other's part",
        ),
        (most > 64, 'federation.privacy: "secure-sum" is for at most 64 training hospitals'),
        (
            most * federation.max_gradient > LARGEST_SUM,
            f"federation.max_gradient: at most {LARGEST_SUM:.0f} / {most} with "
            'privacy = "secure-sum", so that no sum is out of range',
        ),
    )
