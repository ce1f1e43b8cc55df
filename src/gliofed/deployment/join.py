"""A hospital joins: its data checked, the study read and agreed to, then its process runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.kit_process import run_process
from gliofed.deployment.process_events import ConnectionReporter, RefusalRecorder
from gliofed.deployment.site_data import SiteDataPaths, open_client, write_data_paths
from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import ApprovalError, DataError
from gliofed.federated.flare.process import ProcessCommand, server_process, site_process
from gliofed.federated.governance.approval import (
    approve,
    parse_study_text,
    read_approval,
    require_approval,
    write_approval,
)
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.consent import what_leaves, what_runs
from gliofed.federated.governance.policy import load_policy
from gliofed.models.network import build_net
from gliofed.runtime.device import this_machine
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import study_toml
from gliofed.validation.check import check_path
from gliofed.validation.codes import Severity


@dataclass(frozen=True)
class Proposal:
    """What a hospital is asked. text: the study as it will arrive. runs, leaves: plain lines.
    agreed: whether it was approved here before."""

    kit: Kit
    text: str
    runs: tuple[str, ...]
    leaves: tuple[str, ...]
    agreed: bool


def propose(
    kit: Path, data: SiteDataPaths, study: Path | None = None, progress: Progress = NO_PROGRESS
) -> Proposal:
    """Open the kit, check and prepare the site's data, and say what the study would do with it.

    study: the file, or None for the one proposed in the kit. Raises KitError, PolicyError,
    StudyError; DataError where the check finds an error or the policy's least number of cases is
    not there.
    """
    own = open_kit(kit, "site")
    path = study or own.study
    if not path.is_file():
        raise DataError(f"{path}: no study is proposed in the kit; give one with --study")
    asked = study_for_sites(parse_study_text(path.read_text(encoding="utf-8"), str(path)))
    policy = load_policy(own.policy)
    progress.stage("checking the data")
    found = check_path(data.folder, pictures=False, progress=progress)
    errors = found.count(Severity.ERROR)
    if errors:
        raise DataError(
            f"{data.folder}: the check finds {errors} errors; see them with gliofed check "
            f"{data.folder}, cure them, and join again"
        )
    progress.stage("preparing the data")
    site = open_client(asked, own.name, data, policy, own.work / "state", this_machine())
    write_data_paths(own, data)
    size = sum(p.numel() for p in build_net(asked.net.preset, asked.net.stem, 0).parameters())
    text = study_toml(asked)
    counts = site.counts if own.name in asked.data.train else None
    agreed = True
    try:
        require_approval(text, asked.digest, own.approvals, policy)
    except ApprovalError:
        agreed = False
    return Proposal(
        own, text, what_runs(asked, size), what_leaves(asked, policy, counts, size), agreed
    )


def record_approval(proposal: Proposal, who: str, signed: Path | None) -> None:
    """Keep the hospital's yes: `who` said it, or an approval file signed elsewhere.

    Raises ApprovalError where the file does not hold for this study and policy.
    """
    kit, study = proposal.kit, parse_study_text(proposal.text)
    policy = load_policy(kit.policy)
    if signed is None:
        approve(proposal.text, who, kit.approvals, policy)
    else:
        kit.approvals.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_approval(read_approval(signed), kit.approvals)
    given = require_approval(proposal.text, study.digest, kit.approvals, policy)
    AuditLog(kit.audit, kit.name).write(
        "approved", study=study.digest, policy=policy.digest, signed=given.signature is not None
    )


def join(
    proposal: Proposal,
    who: str,
    signed: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Approve a proposal, unless it was approved before, and take part until interrupted.

    who: approves it. signed: an approval file to use in place of `who`'s word. tell: called with
    one line when the server lets the site in, or does not. Raises ApprovalError; CheckpointError
    where the kit is in use; GliofedError where the process ends by itself.
    """
    if not proposal.agreed:
        record_approval(proposal, who, signed)
    run_site(proposal.kit, tell)


def run_site(kit: Kit, tell: Callable[[str], None]) -> None:
    """Take part until interrupted. Raises GliofedError where the process ends by itself.

    tell: hears, in one line each, that the server let the site in, or does not.
    """
    log = AuditLog(kit.audit, kit.name)
    log.write("joined", site=kit.name)
    process = site_process(kit.root, kit.work, kit.name, kit.org)
    _run(kit, process, log, ConnectionReporter(f"{kit.host}:{kit.port}", tell).hear)


def serve(kit: Path) -> None:
    """Run the federation's server until interrupted; raises as `run_site` does."""
    own = open_kit(kit, "server")
    process = server_process(own.root, own.work, own.org)
    _run(own, process, AuditLog(own.audit, "server"), lambda _: None)


def _run(kit: Kit, process: ProcessCommand, log: AuditLog, hear: Callable[[str], None]) -> None:
    """Run a kit's process, what it refuses in its audit log, each of its lines to `hear` too."""
    refusals = RefusalRecorder(log, kit.sites)

    def each(line: str) -> None:
        refusals.hear(line)
        hear(line)

    try:
        run_process(process, kit.work, log, kit.own / "process.log", each)
    finally:
        refusals.close()
