"""`gliofed provision`: one start-up kit for each party of a plan, and later kits of new sites.

    OUT/server/  OUT/lead/  OUT/<site>/      the kits, to be handed over
    OUT/authority/                           private: certificate and key of the authority, the
                                             salt, the plan, certificates that were made

All files are made in a temporary folder and then moved. A second run makes the kits of sites that
are new in the plan, with the same authority and salt. In existing kits it changes only the list of
sites in `kit.toml` of the server and of the lead.
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
from gliofed.federated.flare.provision import (
    CERTIFICATE_DAYS,
    Authority,
    Identity,
    KitRecipients,
    build_kits,
)
from gliofed.federated.governance.default_policy import DEFAULT_POLICY_TOML
from gliofed.federated.linkage.tokens import SALT_BYTES
from gliofed.runtime.files import alone_in, keep_folder, write_private, write_text
from gliofed.study import Study, study_toml

_PLAN: Final = "plan.json"
ISSUED: Final = f"{AUTHORITY}/certificates"
"""Folder of the certificates that the authority has signed, a file a kit."""


@dataclass(frozen=True)
class ProvisionedKits:
    """out: the folder. made: kits made by this run. kept: kits of earlier runs."""

    out: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class _Secrets:
    """The secrets in the authority's folder."""

    authority: Authority
    salt: str


@dataclass(frozen=True)
class _KitContents:
    """What gliofed adds to each kit. study: the proposed study, if there is one."""

    plan: FederationPlan
    salt: str
    policy_toml: str
    study: Study | None


def provision(
    federation: Path,
    out: Path,
    policy_toml: str = DEFAULT_POLICY_TOML,
    days: int = CERTIFICATE_DAYS,
) -> ProvisionedKits:
    """Make a start-up kit for the server, the lead and each site of a federation file.

    out: folder of the kits; kits of new sites are added to those of the same federation.
    policy_toml: text of the initial policy of each site. days: that the certificates are valid.
    Raises as `load_plan` and `make_start_up_kits` do. Needs the extra `gliofed[federation]`.
    """
    return make_start_up_kits(load_plan(federation), out, policy_toml, days)


def make_start_up_kits(
    plan: FederationPlan, out: Path, policy_toml: str, days: int = CERTIFICATE_DAYS
) -> ProvisionedKits:
    """Make the kits of `plan` below `out`; on later runs, the kits of new sites.

    policy_toml, days: as of `provision`. Raises StudyError where the proposed
    study is wrong; KitError where `out` holds another federation or other files, where the plan
    changed beyond new sites, or where no site is new. `out` is then unchanged.
    """
    study = plan.proposed()
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone_in(out), _work_folder(out) as work:
        earlier = _read_authority(out, plan)
        names = _names_to_make(out, plan, first=earlier is None)
        recipients = dataclasses.replace(_recipients(plan, names), days=days)
        kits = build_kits(recipients, work, earlier.authority if earlier else None)
        held = earlier or _Secrets(kits.authority, secrets.token_hex(SALT_BYTES))
        contents = _KitContents(plan, held.salt, policy_toml, study)
        ready = work / "ready"
        ready.mkdir(mode=0o700)
        for name in names:
            folder = kits.folders[_common_name(plan, name)].rename(ready / name)
            _add_contents(folder, name, contents)
            _keep_certificate(folder, ready / ISSUED / f"{name}.crt")
        _write_authority(ready / AUTHORITY, held, plan)
        _make_private(ready)
        _move(ready, out, names, first=earlier is None)
        _update_site_lists(plan, out, names)
    kept = tuple(n for n in (SERVER, LEAD, *plan.site_names) if n not in names)
    return ProvisionedKits(out, names, kept)


def _recipients(plan: FederationPlan, names: tuple[str, ...]) -> KitRecipients:
    """FLARE needs a server and a lead on each run; repeated kits are not moved to `out`."""
    return KitRecipients(
        plan.name,
        plan.server.host,
        plan.server.port,
        plan.server.listen == "loopback",
        plan.server.org,
        Identity(plan.lead.name, plan.lead.org),
        tuple(Identity(s.name, s.org, s.host) for s in plan.sites if s.name in names),
        plan.server.names,
    )


def _names_to_make(out: Path, plan: FederationPlan, first: bool) -> tuple[str, ...]:
    """Names of the kits to make; on later runs, those of new sites."""
    everyone = (SERVER, LEAD, *plan.site_names)
    existing = {path.name.lower() for path in out.iterdir() if not path.name.startswith(".")}
    if first and existing:
        raise KitError(
            f"{out}: expected an empty folder or one of an earlier provision, found "
            f"{sorted(existing)[0]!r}; choose another --out"
        )
    if first:
        return everyone
    before = _read_plan(out)
    lead = () if before["lead"] else (LEAD,)  # whose kit was revoked
    names = (*lead, *(name for name in plan.site_names if name not in before["sites"]))
    if not names:
        raise KitError(
            f"{out}: every site of {plan.name} has a kit already, and a kit is made only once; "
            "add sites to the federation file, or choose another --out for a new federation"
        )
    for name in names:
        if name.lower() in existing:
            raise KitError(f"{out / name}: exists already and is not a kit; move it elsewhere")
    return names


def _common_name(plan: FederationPlan, name: str) -> str:
    return plan.lead.name if name == LEAD else name


def _add_contents(kit: Path, name: str, contents: _KitContents) -> None:
    """Add the files of gliofed to a kit that FLARE's provisioner made."""
    plan, study = contents.plan, contents.study
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
        host=next((s.host for s in plan.sites if s.name == name and s.host), plan.server.host),
        port=plan.server.port,
        sites=plan.site_names,
    )
    write_kit_facts(own, facts)
    if study is not None:
        portable = dataclasses.replace(
            study,
            data=dataclasses.replace(study.data, root=Path()),
            init=study.init and study.init.without_folder,
        )
        write_text(own / "study.toml", study_toml(portable))
    if role == "site":
        write_text(own / "salt", contents.salt + "\n")
        write_text(own / "policy.toml", contents.policy_toml)
    if role != "lead":
        write_services(own / "service", facts)


def _read_authority(out: Path, plan: FederationPlan) -> _Secrets | None:
    """The secrets of an earlier run, or None. Raises KitError where the plan changed otherwise than
    by new sites."""
    folder = out / AUTHORITY
    if not folder.is_dir():
        return None
    try:
        before, authority = _read_plan(out), open_authority(out)
        salt = (folder / "salt").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise KitError(
            f"{folder}: cannot be read ({error}); restore it from a copy: kits of new sites "
            "need the authority that signed the others"
        ) from None
    now = _facts(plan)
    for key in now.keys() - {"sites"}:
        if now[key] != before.get(key) and not (key == "lead" and before["lead"] is None):
            raise KitError(
                f"{out}: holds kits made with {key} = {before.get(key)!r}, the plan now has "
                f"{now[key]!r}; existing kits cannot be changed: choose another --out and hand "
                "over new kits"
            )
    for name, org in before["sites"].items():
        if now["sites"].get(name) != org:
            raise KitError(
                f"{out}: {name!r} (org {org!r}) has a kit, which stays valid; a site cannot be "
                f"changed or removed by changing the plan: gliofed kit revoke {name} first"
            )
    return _Secrets(authority, salt)


def _facts(plan: FederationPlan) -> dict[str, Any]:
    """The values of a plan that existing kits contain."""
    return {
        "name": plan.name,
        "server": {**dataclasses.asdict(plan.server), "names": list(plan.server.names)},
        "lead": dataclasses.asdict(plan.lead),
        "sites": {site.name: site.org for site in plan.sites},
    }


def open_authority(out: Path) -> Authority:
    """The authority of the kits in `out`. Raises KitError."""
    folder = out / AUTHORITY
    try:
        return Authority(
            (folder / "rootCA.pem").read_text(encoding="ascii"),
            (folder / "rootCA.key").read_text(encoding="ascii"),
        )
    except (OSError, ValueError) as error:
        raise KitError(
            f"{folder}: cannot be read ({error}); give the folder that gliofed provision made, or "
            "restore it from a copy: only this authority can sign for the federation's kits"
        ) from None


def forget_party(out: Path, name: str) -> None:
    """Take a site or the lead out of the plan of the kits that were made, once it is revoked."""
    before = _read_plan(out)
    if name == LEAD:
        before["lead"] = None
    before["sites"].pop(name, None)
    write_text(out / AUTHORITY / _PLAN, json.dumps(before, indent=1) + "\n")


def _read_plan(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / AUTHORITY / _PLAN).read_text(encoding="utf-8"))
    found["server"].setdefault("names", [])  # of an earlier version
    return found


def _keep_certificate(kit: Path, copy: Path) -> None:
    base = "server" if (kit / "startup/server.crt").is_file() else "client"
    write_text(copy, (kit / f"startup/{base}.crt").read_text(encoding="ascii"))


def _write_authority(folder: Path, held: _Secrets, plan: FederationPlan) -> None:
    write_text(folder / "rootCA.pem", held.authority.certificate)
    write_text(folder / "rootCA.key", held.authority.key)
    write_text(folder / "salt", held.salt + "\n")
    write_text(folder / _PLAN, json.dumps(_facts(plan), indent=1) + "\n")


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A temporary folder on the same disk, always deleted at the end."""
    for stale in out.glob(".making-*"):  # of a killed run, since this one holds the lock
        shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=out))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make_private(root: Path) -> None:
    """Set modes 0700 and 0600: no other user may read a kit."""
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o700)
        for file in files:
            (Path(folder) / file).chmod(0o600)


def _move(ready: Path, out: Path, names: tuple[str, ...], first: bool) -> None:
    """Move the kits, then the authority, which lists them. Kits are deleted where a move fails."""
    moved: list[Path] = []
    try:
        for name in names:
            moved.append((ready / name).rename(out / name))
        if first:
            (ready / AUTHORITY).rename(out / AUTHORITY)
        else:
            _add_certificates(ready / ISSUED, out / ISSUED)
            (ready / AUTHORITY / _PLAN).replace(out / AUTHORITY / _PLAN)
    except BaseException:
        for kit in moved:
            shutil.rmtree(kit, ignore_errors=True)
        raise
    keep_folder(out)


def _add_certificates(new: Path, issued: Path) -> None:
    """Put new certificates before those that the same name had."""
    issued.mkdir(mode=0o700, exist_ok=True)
    for file in new.iterdir():
        known = issued / file.name
        before = known.read_text(encoding="ascii") if known.is_file() else ""
        write_private(known, file.read_text(encoding="ascii") + before)


def _update_site_lists(plan: FederationPlan, out: Path, names: tuple[str, ...]) -> None:
    """Write all site names into the server's and the lead's kit, where these still exist."""
    for role in {SERVER, LEAD}.difference(names):
        own = out / role / "gliofed"
        if own.is_dir():
            write_kit_facts(own, None, sites=plan.site_names)
