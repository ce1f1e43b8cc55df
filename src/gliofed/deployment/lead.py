"""The lead's commands: start a study, show its status, stop it, withdraw a site or readmit it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gliofed.deployment.certificate_dates import certificate_end, certificate_warning
from gliofed.deployment.kit import Kit, open_any, open_kit
from gliofed.deployment.run_page import PAGE
from gliofed.deployment.run_status import STATUS_FILE, RunStatus, read_status, write_status
from gliofed.deployment.supervisor import (
    LeadOrders,
    RetryLimits,
    StartOptions,
    Supervisor,
    write_orders,
)
from gliofed.errors import CheckpointError, KitError, StudyError
from gliofed.federated.flare.admin_session import AdminSession
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.hash_chain import Event
from gliofed.federated.governance.withdrawals import Change, read_withdrawn
from gliofed.runtime.files import private_files
from gliofed.study import Study, load_study


def start(
    study: Path,
    kit: Path,
    on_status: Callable[[RunStatus], None],
    limits: RetryLimits | None = None,
    test_again: bool = False,
) -> RunStatus:
    """Run a study from its last committed round to its end; the last status.

    on_status: called with the status whenever it changes. test_again: test and calibrate the model
    once more where the run is complete. Raises KitError, StudyError, and
    CheckpointError where another process runs this study.
    """
    proposed = load_study(study)
    if proposed.federation.validates:
        raise StudyError(
            f"{study}: validates a model; run gliofed federation validate MODEL {study}"
        )
    return supervise(proposed, kit, on_status, StartOptions(limits or RetryLimits(), test_again))


def supervise(
    study: Study, kit: Path, on_status: Callable[[RunStatus], None], options: StartOptions
) -> RunStatus:
    """Run jobs of a study until it has ended; returns and raises as `start`."""
    lead_kit = open_kit(kit, "lead")
    session = AdminSession(lead_kit.root, lead_kit.name, lead_kit.own / "session.log")
    with private_files(), closing(session):
        supervisor = Supervisor(
            lead_kit, study, session, on_status, options.limits, options.test_again, options.model
        )
        AuditLog(lead_kit.audit, "lead").write("proposed", study=supervisor.study.digest)
        return supervisor.run()


def status(kit: Path) -> RunStatus:
    """Status of the newest run of a lead's or server's kit, with a warning where the kit's own
    certificate ends soon. Raises CheckpointError before any."""
    opened = open_any(kit)
    folder = _newest(opened)
    run = read_status(folder)
    if opened.role == "server":
        run = dataclasses.replace(run, withdrawn=read_withdrawn(folder))
    end = certificate_end(opened.certificate)
    warning = certificate_warning(opened.role, end, datetime.now(UTC))
    if warning and warning not in run.warnings:
        run = dataclasses.replace(run, warnings=(warning, *run.warnings))
    return run


def page_path(kit: Path) -> Path:
    """The page of the newest run of a kit. Raises CheckpointError before any."""
    return _newest(open_any(kit)) / PAGE


def stop(kit: Path) -> RunStatus:
    """Order the run of the lead's kit to stop after its current round."""
    folder = _newest(open_kit(kit, "lead"))
    write_orders(folder, LeadOrders(stop=True))
    return read_status(folder)


def withdraw(kit: Path, site: str) -> RunStatus:
    """Have the server record that `site` has withdrawn: it gets no request from the next round on.

    Returns the status of the newest run of the lead's kit. Raises KitError where there is no such
    site, LinkError where the server cannot be reached: nothing is changed then.
    """
    return _change_withdrawn(kit, site, "withdraw")


def readmit(kit: Path, site: str) -> RunStatus:
    """Take a withdrawal back; returns and raises as `withdraw` does."""
    return _change_withdrawn(kit, site, "readmit")


def _change_withdrawn(kit: Path, site: str, change: Change) -> RunStatus:
    lead_kit = open_kit(kit, "lead")
    if site not in lead_kit.sites:
        raise KitError(f"the federation has no site {site!r}; it has {', '.join(lead_kit.sites)}")
    folder = _newest(lead_kit)
    run = read_status(folder)
    session = AdminSession(lead_kit.root, lead_kit.name, lead_kit.own / "session.log")
    try:
        withdrawn = session.change_withdrawn(run.run, site, change)
    finally:
        session.close()
    event: Event = "site-withdrawn" if change == "withdraw" else "site-readmitted"
    AuditLog(lead_kit.audit, "lead").write(event, site=site, run=run.run)
    run = dataclasses.replace(read_status(folder), withdrawn=withdrawn)
    write_status(folder, run)
    return run


def _newest(kit: Kit) -> Path:
    statuses = sorted(kit.work.glob(f"*/{STATUS_FILE}"), key=lambda p: p.stat().st_mtime)
    if not statuses:
        raise CheckpointError(f"{kit.root}: no study was started with this kit yet")
    return statuses[-1].parent
