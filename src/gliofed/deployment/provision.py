"""`gliofed provision`: from a plan to one start-up kit each, and later to those of new sites.

    OUT/server/  OUT/lead/  OUT/<site>/      kits, to hand over
    OUT/authority/                           stays with whoever provisions: certificate and key of
                                             the authority, the salt, the plan

Everything is made beside its place and moved there whole. A second run makes the kits of sites
that are new in the plan, with the same authority and salt. It changes one thing in kits that are
there: the list of sites in the server's and the lead's `kit.toml`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gliofed.deployment.federation_plan import AUTHORITY, LEAD, SERVER, FederationPlan, load_plan
from gliofed.deployment.kit import KitFacts, Role, write_kit_facts
from gliofed.deployment.services import write_services
from gliofed.errors import KitError
from gliofed.federated.flare.provision import Authority, Identity, KitRecipients, build_kits
from gliofed.federated.governance.policy import DEFAULT_POLICY_TOML
from gliofed.federated.linkage.tokens import SALT_BYTES
from gliofed.runtime.files import alone_in, keep_folder, write_text
from gliofed.study import Study, study_toml

_PLAN: Final = "plan.json"


@dataclass(frozen=True)
class ProvisionedKits:
    """out: the folder. made: kits made by this run. kept: kits that were there before."""

    out: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class _Secrets:
    """What the authority's folder holds."""

    authority: Authority
    salt: str


def provision(
    federation: Path, out: Path, policy_toml: str = DEFAULT_POLICY_TOML
) -> ProvisionedKits:
    """Make a start-up kit for the server, the lead and each site of a federation file.

    out: folder of the kits; where it holds the kits of the same federation, those of new sites
    are added. policy_toml: the policy that each site starts with. Raises as `load_plan` and
    `make_start_up_kits` do. Needs the extra `gliofed[federation]`.
    """
    return make_start_up_kits(load_plan(federation), out, policy_toml)


def make_start_up_kits(plan: FederationPlan, out: Path, policy_toml: str) -> ProvisionedKits:
    """Make the kits of `plan` below `out`, or those of the sites that a grown plan has more.

    policy_toml: text of the policy that each site starts with. Raises StudyError where the study
    proposed cannot be used; KitError where `out` holds another federation or something else than
    kits, where the plan changed in more than new sites, or where nothing is new. `out` is then as
    it was.
    """
    study = plan.proposed()
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone_in(out), _beside(out) as work:
        known = _read_authority(out, plan)
        names = _to_make(out, plan, first=known is None)
        kits = build_kits(_parties(plan, names), work, known.authority if known else None)
        held = known or _Secrets(kits.authority, secrets.token_hex(SALT_BYTES))
        ready = work / "ready"
        ready.mkdir(mode=0o700)
        for name in names:
            folder = kits.folders[_common_name(plan, name)].rename(ready / name)
            _fill(folder, plan, name, held.salt, policy_toml, study)
        _write_authority(ready / AUTHORITY, held, plan)
        _shut(ready)
        _move(ready, out, names, first=known is None)
        _tell_sites(plan, out, names)
    kept = tuple(n for n in (SERVER, LEAD, *plan.site_names) if n not in names)
    return ProvisionedKits(out, names, kept)


def _parties(plan: FederationPlan, names: tuple[str, ...]) -> KitRecipients:
    """FLARE wants a server and a lead each time; those made again are not moved to `out`."""
    return KitRecipients(
        plan.name,
        plan.server.host,
        plan.server.port,
        plan.server.listen == "loopback",
        plan.server.org,
        Identity(plan.lead.name, plan.lead.org),
        tuple(Identity(site.name, site.org) for site in plan.sites if site.name in names),
    )


def _to_make(out: Path, plan: FederationPlan, first: bool) -> tuple[str, ...]:
    """The kits to make; on later runs, those of new sites."""
    everyone = (SERVER, LEAD, *plan.site_names)
    there = {path.name.lower() for path in out.iterdir() if not path.name.startswith(".")}
    if first and there:
        raise KitError(
            f"{out}: expected an empty folder or one of an earlier provision, found "
            f"{sorted(there)[0]!r}; choose another --out"
        )
    if first:
        return everyone
    before = set(json.loads((out / AUTHORITY / _PLAN).read_text(encoding="utf-8"))["sites"])
    names = tuple(name for name in plan.site_names if name not in before)
    if not names:
        raise KitError(
            f"{out}: every site of {plan.name} has a kit already, and a kit is not made twice; "
            "add sites to the federation file, or choose another --out for a new federation"
        )
    for name in names:
        if name.lower() in there:
            raise KitError(f"{out / name}: is there already, though no kit; move it elsewhere")
    return names


def _common_name(plan: FederationPlan, name: str) -> str:
    return plan.lead.name if name == LEAD else name


def _fill(
    kit: Path, plan: FederationPlan, name: str, salt: str, policy_toml: str, study: Study | None
) -> None:
    """Put what is gliofed's into a kit that FLARE's provisioner made."""
    own = kit / "gliofed"
    role: Role = "server" if name == SERVER else "lead" if name == LEAD else "site"
    orgs = {SERVER: plan.server.org, LEAD: plan.lead.org, **{s.name: s.org for s in plan.sites}}
    for folder in (own, own / "work", own / "approvals") if role == "site" else (own, own / "work"):
        folder.mkdir()
    facts = KitFacts(
        role=role,
        name=_common_name(plan, name),
        org=orgs[name],
        federation=plan.name,
        host=plan.server.host,
        port=plan.server.port,
        sites=plan.site_names,
    )
    write_kit_facts(own, facts)
    if study is not None:
        here = dataclasses.replace(study, data=dataclasses.replace(study.data, root=Path()))
        write_text(own / "study.toml", study_toml(here))
    if role == "site":
        write_text(own / "salt", salt + "\n")
        write_text(own / "policy.toml", policy_toml)
    if role != "lead":
        write_services(own / "service", facts)


def _read_authority(out: Path, plan: FederationPlan) -> _Secrets | None:
    """What an earlier run left; none on the first. Refuses a plan that changed beyond its sites."""
    folder = out / AUTHORITY
    if not folder.is_dir():
        return None
    try:
        before = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        found = Authority(
            (folder / "rootCA.pem").read_text(encoding="ascii"),
            (folder / "rootCA.key").read_text(encoding="ascii"),
        )
        salt = (folder / "salt").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise KitError(
            f"{folder}: cannot be read ({error}); bring it back from a copy: kits of new sites "
            "need the authority that signed the others"
        ) from None
    now = _facts(plan)
    for key in now.keys() - {"sites"}:
        if now[key] != before.get(key):
            raise KitError(
                f"{out}: holds kits made with {key} = {before.get(key)!r}, the plan now has "
                f"{now[key]!r}; kits handed over cannot follow: choose another --out and hand "
                "out new kits"
            )
    for name, org in before["sites"].items():
        if now["sites"].get(name) != org:
            raise KitError(
                f"{out}: {name!r} (org {org!r}) has a kit, which stays valid; a site cannot be "
                "changed or taken out by changing the plan: make a new federation without it"
            )
    return _Secrets(found, salt)


def _facts(plan: FederationPlan) -> dict[str, Any]:
    """What kits already handed over depend on."""
    return {
        "name": plan.name,
        "server": dataclasses.asdict(plan.server),
        "lead": dataclasses.asdict(plan.lead),
        "sites": {site.name: site.org for site in plan.sites},
    }


def _write_authority(folder: Path, held: _Secrets, plan: FederationPlan) -> None:
    folder.mkdir()
    write_text(folder / "rootCA.pem", held.authority.certificate)
    write_text(folder / "rootCA.key", held.authority.key)
    write_text(folder / "salt", held.salt + "\n")
    write_text(folder / _PLAN, json.dumps(_facts(plan), indent=1) + "\n")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder on the same disk, gone at the end whatever happens."""
    for left in out.glob(".making-*"):  # of a killed run; this one holds the lock
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=out))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _shut(root: Path) -> None:
    """Folders 0700 and files 0600, all of them: nothing in a kit is for other users."""
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o700)
        for file in files:
            (Path(folder) / file).chmod(0o600)


def _move(ready: Path, out: Path, names: tuple[str, ...], first: bool) -> None:
    """Kits first, then the authority that says they are there; taken back where a move fails."""
    moved: list[Path] = []
    try:
        for name in names:
            moved.append((ready / name).rename(out / name))
        if first:
            (ready / AUTHORITY).rename(out / AUTHORITY)
        else:
            (ready / AUTHORITY / _PLAN).replace(out / AUTHORITY / _PLAN)
    except BaseException:
        for kit in moved:
            shutil.rmtree(kit, ignore_errors=True)
        raise
    keep_folder(out)


def _tell_sites(plan: FederationPlan, out: Path, names: tuple[str, ...]) -> None:
    """The server and the lead know all sites; their kits may have been moved away by now."""
    for role in {SERVER, LEAD}.difference(names):
        own = out / role / "gliofed"
        if own.is_dir():
            write_kit_facts(own, None, sites=plan.site_names)
