"""Public functions to describe and to approve a study at a hospital."""

from __future__ import annotations

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
from gliofed.federated.governance.policy import SitePolicy, load_policy
from gliofed.study import Study, study_toml


def approve(
    study: Path, who: str, out: Path, key: Path | None = None, policy: Path | None = None
) -> Approval:
    """Approve a study file for one site; the approval is written to `out`.

    who: name of the approver. out: a file, or the folder of a kit's approvals. key: file of an
    approver's private key, for a signature. policy: the site's policy file, to bind the
    approval to. Raises StudyError, PolicyError, ApprovalError.
    """
    approval = make_approval(_text(study), who, None if policy is None else load_policy(policy))
    if key is not None:
        approval = sign(approval, key)
    write_approval(approval, out)
    return approval


def consent(study: Path, policy: Path | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two lists of lines: what a study runs at a site, and what leaves it under its policy."""
    parsed = parse_study_text(_text(study), str(study))
    size = network_size(parsed)
    rules = SitePolicy() if policy is None else load_policy(policy)
    return what_runs(parsed, size), what_leaves(parsed, rules, None, size)


def network_size(study: Study) -> int:
    """Number of parameters of the study's network."""
    from gliofed.models.network import build_net  # noqa: PLC0415 (torch takes seconds)

    return sum(p.numel() for p in build_net(study.net.preset, study.net.stem, seed=0).parameters())


def _text(study: Path) -> str:
    """The canonical text of a study file, as a training job sends it to sites."""
    try:
        parsed = parse_study_text(study.read_text(encoding="utf-8"), str(study))
    except FileNotFoundError:
        raise StudyError(f"{study}: no such study file") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{study}: not a TOML file: {error}") from None
    return study_toml(study_for_sites(parsed))
