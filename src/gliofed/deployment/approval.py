"""Public functions to describe and to approve a study at a hospital."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import StudyError
from gliofed.federated.governance.approval import (
    Approval,
    make_approval,
    parse_study_text,
    sign,
    write_approval,
)
from gliofed.federated.governance.consent import what_leaves, what_runs
from gliofed.federated.governance.policy import (
    SitePolicy,
    budget_of,
    enforce_private,
    load_policy,
)
from gliofed.federated.noise.accounting import mechanism_of
from gliofed.federated.noise.ledger import LEDGER, Ledger, RunCost
from gliofed.study import Study, study_toml


@dataclass(frozen=True)
class ConsentForm:
    """A study as a person reads it before approval.

    text: canonical TOML, as a training job sends it. policy: under which `leaves` is written.
    runs: lines of what it runs at a site. leaves: lines of what leaves the site.
    """

    text: str
    policy: SitePolicy
    runs: tuple[str, ...]
    leaves: tuple[str, ...]


def consent(study: Path, policy: Path | None = None) -> ConsentForm:
    """The consent form of a study file. policy: the site's policy file, or None for the default.

    With a policy, what the ledger beside it has spent counts. Raises StudyError; PolicyError, also
    where the study would exceed what the policy allows of `[privacy]`, or lacks it.
    """
    text = _text(study)
    parsed = parse_study_text(text, str(study))
    size, sent = network_size(parsed)
    rules = SitePolicy() if policy is None else load_policy(policy)
    enforce_private(rules, parsed)
    if policy is not None:
        require_budget(parsed, rules, policy.with_name(LEDGER))
    return ConsentForm(text, rules, what_runs(parsed, size), what_leaves(parsed, rules, None, sent))


def approve(form: ConsentForm, who: str, out: Path, key: Path | None = None) -> Approval:
    """Approve what a consent form shows, under the policy it shows; write the approval to `out`.

    Files that have changed since the form was made do not matter. who: name of the approver. out: a
    file, or the folder of a kit's approvals. key: file of an approver's private key, for a
    signature. Raises ApprovalError.
    """
    approval = make_approval(form.text, who, form.policy)
    if key is not None:
        approval = sign(approval, key)
    write_approval(approval, out)
    return approval


def require_budget(study: Study, policy: SitePolicy, ledger: Path) -> None:
    """Raise PolicyError where a study with `[privacy]` would exceed the site's budget."""
    if study.privacy is None:
        return
    mechanism = mechanism_of(study)
    cost = RunCost(study.name, mechanism.rate, mechanism.noise, mechanism.rounds)
    Ledger(ledger, budget_of(policy)).require("", cost)


def network_size(study: Study) -> tuple[int, int]:
    """Number of parameters of the study's network, and of those that are trained and sent."""
    from gliofed.models.network import build_net, without_frozen  # noqa: PLC0415 (torch takes seconds)

    net = dict(build_net(study.net, seed=0).named_parameters())
    trained = without_frozen(net, study.frozen)
    return sum(p.numel() for p in net.values()), sum(p.numel() for p in trained.values())


def _text(study: Path) -> str:
    """The canonical text of a study file, as a training job sends it to sites."""
    try:
        parsed = parse_study_text(study.read_text(encoding="utf-8"), str(study))
    except FileNotFoundError:
        raise StudyError(f"{study}: no such study file") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{study}: not a TOML file: {error}") from None
    return study_toml(study_for_sites(parsed))
