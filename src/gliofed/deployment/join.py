"""`gliofed join`: the data are checked, the study is approved, and the client process runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.formats.registry import DEFAULT
from gliofed.deployment.approval import network_size, require_budget
from gliofed.deployment.certificate_dates import CertificateWatch
from gliofed.deployment.federation_plan import SERVER
from gliofed.deployment.kit import PROCESS_LOG, Kit, open_kit
from gliofed.deployment.kit_process import run_process
from gliofed.deployment.process_events import ConnectionReporter, RefusalRecorder
from gliofed.deployment.site_data import SiteDataPaths, open_client, write_data_paths
from gliofed.deployment.site_progress import ProgressReporter
from gliofed.deployment.stored_runs import delete_job_files
from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import ApprovalError, DataError
from gliofed.federated.flare.process import ProcessCommand, server_process, site_process
from gliofed.federated.governance.approval import (
    check_approval,
    make_approval,
    parse_study_text,
    read_approval,
    require_approval,
    write_approval,
)
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.consent import what_leaves, what_runs
from gliofed.federated.governance.policy import SitePolicy, enforce_private, load_policy
from gliofed.runtime.files import alone_in, write_private
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import study_toml
from gliofed.validation.check import check_path
from gliofed.validation.codes import Severity


@dataclass(frozen=True)
class Proposal:
    """A study as it is described before approval.

    text: canonical TOML of the study, as the server sends it. policy: under which `leaves` is
    written. runs, leaves: lines of text. agreed: whether it was approved here before.
    """

    kit: Kit
    text: str
    policy: SitePolicy
    runs: tuple[str, ...]
    leaves: tuple[str, ...]
    agreed: bool


def propose(
    kit: Path, data: SiteDataPaths, study: Path | None = None, progress: Progress = NO_PROGRESS
) -> Proposal:
    """Open the kit, check and prepare the site's data, and describe the study.

    study: the file, or None for the one proposed in the kit. Raises KitError, PolicyError,
    StudyError; DataError where the check finds an error or the site has fewer cases than its
    policy requires.
    """
    site_kit = open_kit(kit, "site")
    path = study or site_kit.study
    if not path.is_file():
        raise DataError(
            f"{path}: no study is proposed in the kit; give the lead's file once with --study FILE"
        )
    proposed = study_for_sites(parse_study_text(path.read_text(encoding="utf-8"), str(path)))
    policy = load_policy(site_kit.policy)
    enforce_private(policy, proposed)
    progress.stage("checking the data")
    _check(data.folder, data.format, progress)
    progress.stage("preparing the data")
    client = open_client(proposed, site_kit, data, site_kit.work / "state", policy)
    write_data_paths(site_kit, data)
    size, sent = network_size(proposed)
    text = study_toml(proposed)
    counts = client.counts if site_kit.name in proposed.data.train else None
    agreed = True
    try:
        require_approval(text, proposed.digest, site_kit.approvals, policy)
    except ApprovalError:
        agreed = False
        require_budget(proposed, policy, site_kit.ledger)
    return Proposal(
        site_kit,
        text,
        policy,
        what_runs(proposed, size),
        what_leaves(proposed, policy, counts, sent),
        agreed,
    )


def _check(folder: Path, format_id: str, progress: Progress) -> None:
    errors = check_path(folder, False, progress, format_id).count(Severity.ERROR)
    if errors:
        given = "" if format_id == DEFAULT else f" --format {format_id}"
        raise DataError(
            f"{folder}: the check found {errors} errors; list them with gliofed check "
            f"{folder}{given}, correct them, and join again"
        )


def record_approval(proposal: Proposal, who: str, signed: Path | None) -> None:
    """Write the hospital's approval, by `who` or from a signed approval file.

    Raises ApprovalError where the file is not for this study and policy, or the site's policy is
    no longer the one that was shown. Nothing is written then.
    """
    kit, policy = proposal.kit, proposal.policy
    if load_policy(kit.policy) != policy:
        raise ApprovalError(
            f"{kit.policy}: was changed after it was shown what leaves; run gliofed join again"
        )
    study = parse_study_text(proposal.text)
    approval = (
        make_approval(proposal.text, who, policy) if signed is None else read_approval(signed)
    )
    check_approval(approval, study, policy, signed or kit.approvals)
    kit.approvals.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_approval(approval, kit.approvals)
    has_signature = approval.signature is not None
    AuditLog(kit.audit, kit.name).write(
        "approved", study=study.digest, policy=policy.digest, signed=has_signature
    )


def join(
    proposal: Proposal,
    who: str,
    signed: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Approve a proposal, unless it was approved before, and take part until interrupted.

    who: name of the approver. signed: an approval file to use instead. report: called with
    one line whenever the connection to the server is made or fails. Raises ApprovalError;
    CheckpointError where the kit is in use; GliofedError where the process ends by itself.
    """
    if not proposal.agreed:
        record_approval(proposal, who, signed)
    keep_study(proposal)
    run_site(proposal.kit, report)


def keep_study(proposal: Proposal) -> None:
    """Have the kit propose this approved study from now on, as to a service without `--study`."""
    path = proposal.kit.study
    kept = path.read_text(encoding="utf-8") if path.is_file() else ""
    if kept == "" or study_toml(study_for_sites(parse_study_text(kept))) != proposal.text:
        write_private(path, proposal.text)


def run_site(kit: Kit, report: Callable[[str], None]) -> None:
    """Take part until interrupted. Raises GliofedError where the process ends by itself.

    report: receives one line whenever the connection to the server is made or fails, a training
    process of this site fails, or its certificate ends soon, and lines on the site's own progress
    in a run.
    """
    log = AuditLog(kit.audit, kit.name)
    log.write("joined", site=kit.name)
    process = site_process(kit.root, kit.work, kit.name, kit.org)
    connection = ConnectionReporter(f"{kit.host}:{kit.port}", kit.own / PROCESS_LOG, report)
    certificate = CertificateWatch(kit.name, kit.certificate, report)
    progress = ProgressReporter(kit, report)

    def handle_line(line: str) -> None:
        connection.handle_line(line)
        certificate.tick()
        progress.tick()

    _run(kit, process, log, handle_line)


def serve(kit: Path, report: Callable[[str], None] = lambda line: None) -> None:
    """Run the federation's server until interrupted; raises as `run_site` does.

    report: receives one line where the server's certificate ends soon.
    """
    server_kit = open_kit(kit, "server")
    process = server_process(server_kit.root, server_kit.work, server_kit.org)
    certificate = CertificateWatch(SERVER, server_kit.certificate, report)
    log = AuditLog(server_kit.audit, "server")
    _run(server_kit, process, log, lambda line: certificate.tick())


def _run(
    kit: Kit, process: ProcessCommand, log: AuditLog, handle_line: Callable[[str], None]
) -> None:
    """Run a kit's process; refusals are recorded in its audit log."""
    with alone_in(kit.work):
        delete_job_files(kit)
    refusals = RefusalRecorder(log, kit.sites)

    def handle(line: str) -> None:
        refusals.handle_line(line)
        handle_line(line)

    try:
        run_process(process, kit.work, log, kit.own / PROCESS_LOG, handle)
    finally:
        refusals.close()
