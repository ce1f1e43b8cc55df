"""The lead's verbs: start a study, see how it stands, stop it, and take a site out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gliofed.deployment.kit import Kit, open_any, open_kit
from gliofed.deployment.run_page import PAGE
from gliofed.deployment.run_status import STATUS_FILE, RunStatus, read_status
from gliofed.deployment.supervisor import RetryLimits, Supervisor, write_orders
from gliofed.errors import CheckpointError, KitError
from gliofed.federated.flare.admin_session import AdminSession
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.study import load_study


def start(
    study: Path, kit: Path, told: Callable[[RunStatus], None], patience: RetryLimits | None = None
) -> RunStatus:
    """See a study through, from its last committed round; how it ended.

    told: hears how the run stands, each time it changes. Raises KitError, StudyError, and
    CheckpointError where another process sees this study through.
    """
    own = open_kit(kit, "lead")
    link = AdminSession(own.root, own.name, own.own / "session.log")
    try:
        job = Supervisor(own, load_study(study), link, told, patience or RetryLimits())
        AuditLog(own.audit, "lead").write("proposed", study=job.study.digest)
        return job.run()
    finally:
        link.close()


def status(kit: Path) -> RunStatus:
    """How the newest run of a lead's or server's kit stands. Raises CheckpointError before any."""
    return read_status(_newest(open_any(kit)))


def page_path(kit: Path) -> Path:
    """Where the page of the newest run of a kit is. Raises CheckpointError before any."""
    return _newest(open_any(kit)) / PAGE


def stop(kit: Path) -> RunStatus:
    """Have the run of the lead's kit stop after its present round."""
    folder = _newest(open_kit(kit, "lead"))
    write_orders(folder, stop=True)
    return read_status(folder)


def withdraw(kit: Path, site: str) -> RunStatus:
    """Ask `site` no more, from the next round on. Raises KitError where there is no such site."""
    own = open_kit(kit, "lead")
    if site not in own.sites:
        raise KitError(f"the federation has no site {site!r}; it has {', '.join(own.sites)}")
    folder = _newest(own)
    write_orders(folder, withdraw=site)
    AuditLog(own.audit, "lead").write("site-withdrawn", site=site)
    return read_status(folder)


def _newest(kit: Kit) -> Path:
    found = sorted(kit.work.glob(f"*/{STATUS_FILE}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise CheckpointError(f"{kit.root}: no study was started with this kit yet")
    return found[-1].parent
