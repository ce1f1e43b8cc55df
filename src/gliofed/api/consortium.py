"""A federation between hospitals: kits for everyone who takes part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.federated.governance.policy import DEFAULT_POLICY_TOML
from gliofed.runtime.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:  # NVIDIA FLARE is an extra
    from gliofed.deployment.join import Proposal
    from gliofed.deployment.provision import ProvisionedKits
    from gliofed.deployment.run_status import RunStatus
    from gliofed.deployment.site_data import SiteDataPaths
    from gliofed.deployment.supervisor import RetryLimits


def provision(
    federation: Path, out: Path, policy_toml: str = DEFAULT_POLICY_TOML
) -> ProvisionedKits:
    """Make a start-up kit for the server, the lead and each site of a federation file.

    out: folder of the kits; where it holds the kits of the same federation, those of new sites
    are added. policy_toml: the policy that each site starts with. Raises StudyError where the
    federation file or its study cannot be used, KitError where `out` cannot. Needs the extra
    `gliofed[federation]`.
    """
    from gliofed.deployment.federation_plan import load_plan
    from gliofed.deployment.provision import provision as make

    return make(load_plan(federation), out, policy_toml)


def look(
    kit: Path, data: SiteDataPaths, study: Path | None = None, progress: Progress = NO_PROGRESS
) -> Proposal:
    """Check and prepare a site's data, and say what a study would do with it.

    The first half of joining; see `gliofed.deployment.join.propose` for what it raises.
    """
    from gliofed.deployment.join import propose as make

    return make(kit, data, study, progress)


def join(
    proposal: Proposal,
    who: str,
    signed: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Agree to a proposal, unless it was before, and take part until interrupted.

    who: says yes. signed: an approval file to take in place of their word. tell: hears in one line
    each that the server let the site in, or does not. Raises ApprovalError,
    CheckpointError where the kit is in use, GliofedError where the process ends by itself.
    """
    from gliofed.deployment.join import record_approval, run_site

    if not proposal.agreed:
        record_approval(proposal, who, signed)
    run_site(proposal.kit, tell)


def serve(kit: Path) -> None:
    """Run a federation's server until interrupted. Raises as `join` does."""
    from gliofed.deployment.join import run_server as run

    run(kit)


def start(
    study: Path, kit: Path, told: Callable[[RunStatus], None], patience: RetryLimits | None = None
) -> RunStatus:
    """See a study through with the lead's kit, from its last committed round; how it ended.

    Raises KitError, StudyError; CheckpointError where another process sees it through.
    """
    from gliofed.deployment.lead import start as run

    return run(study, kit, told, patience)


def status(kit: Path) -> RunStatus:
    """How the newest run of a lead's or server's kit stands. Raises CheckpointError before any."""
    from gliofed.deployment.lead import status as read

    return read(kit)


def stop(kit: Path) -> RunStatus:
    """Have the run of a lead's kit stop after its present round."""
    from gliofed.deployment.lead import stop as order

    return order(kit)


def withdraw(kit: Path, site: str) -> RunStatus:
    """Ask a site no more, from the next round on. Raises KitError where there is no such site."""
    from gliofed.deployment.lead import withdraw as order

    return order(kit, site)


def try_out(out: Path, say: Callable[[str], None], progress: Progress = NO_PROGRESS) -> RunStatus:
    """Train a federation of phantom hospitals on this machine, each party a process of its own.

    out: folder of everything; the same one goes on from the last committed round. say: told the
    command of each party, then what the lead's prints. Raises GliofedError where a party ends
    before the study does.
    """
    from gliofed.deployment.try_out import try_out as run

    return run(out, say, progress)
