"""A start-up kit on the disk, and the checks when it is opened.

`serve`, `join` and `start` begin with `open_kit`. It refuses a kit that other users may read, of
another role, or whose certificate is not valid now. The error names the cure.
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from gliofed.errors import KitError, StudyError
from gliofed.federated.noise.ledger import LEDGER
from gliofed.runtime.files import write_private
from gliofed.settings import build, read_toml, toml_of

Role = Literal["site", "server", "lead"]

_STARTUP: Final = {"site": "fed_client.json", "server": "fed_server.json", "lead": "fed_admin.json"}
_SERVER_NAME: Final = "server"
PROCESS_LOG: Final = "process.log"
"""File below `Kit.own` with the output of the kit's processes."""


@dataclass(frozen=True)
class KitFacts:
    """`KIT/gliofed/kit.toml`. name: common name of the certificate. org: its organisation.

    host, port: address of the server. sites: all sites with a kit when the file was written.
    """

    role: Role
    name: str
    org: str
    federation: str
    host: str
    port: int
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Kit:
    """A kit that passed `open_kit`. root: its folder, an absolute path."""

    root: Path
    role: Role
    name: str
    org: str
    federation: str
    host: str
    port: int
    sites: tuple[str, ...]

    @property
    def own(self) -> Path:
        """The folder with the files of gliofed; the rest of the kit belongs to FLARE."""
        return self.root / "gliofed"

    @property
    def certificate(self) -> Path:
        """The certificate, PEM."""
        return self.root / "startup" / f"{_base(self.role)}.crt"

    @property
    def key(self) -> Path:
        """The private key, PEM."""
        return self.root / "startup" / f"{_base(self.role)}.key"

    @property
    def authority(self) -> Path:
        """The certificate of the federation's authority, PEM."""
        return self.root / "startup" / "rootCA.pem"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.own / "audit.jsonl"

    @property
    def policy(self) -> Path:
        """The hospital's policy; of a site."""
        return self.own / "policy.toml"

    @property
    def ledger(self) -> Path:
        """What studies with `[privacy]` have spent; of a site, beside its policy."""
        return self.policy.with_name(LEDGER)

    @property
    def approvals(self) -> Path:
        """Folder of the studies approved here; of a site."""
        return self.own / "approvals"

    @property
    def work(self) -> Path:
        """Folder of the state of runs."""
        return self.own / "work"

    @property
    def salt(self) -> Path:
        """The federation's salt; of a site."""
        return self.own / "salt"

    @property
    def study(self) -> Path:
        """The proposed study; the file is optional."""
        return self.own / "study.toml"


def open_any(path: Path) -> Kit:
    """The kit in `path`, of any role; raises as `open_kit` does."""
    kit = read_kit(path)
    check_certificate(kit, kit.certificate)
    return kit


def open_kit(path: Path, role: Role) -> Kit:
    """The kit in `path`, which must be of `role` and safe and valid now.

    Raises KitError: as `read_kit` and `check_certificate` do, or of another role.
    """
    facts = _read_facts(path.resolve())
    if facts.role != role:
        raise KitError(
            f"{path}: is the kit of the {facts.role} {facts.name!r}; expected a {role}'s kit"
        )
    return open_any(path)


def read_kit(path: Path) -> Kit:
    """The kit in `path`, of any role; its certificate is not checked.

    Raises KitError: no kit, a file missing, a link in place of a file or folder, a private key or
    salt that others may read.
    """
    root = path.resolve()
    facts = _read_facts(root)
    kit = Kit(root, **{f.name: getattr(facts, f.name) for f in dataclasses.fields(KitFacts)})
    startup, own = root / "startup", kit.own
    private = [kit.key, kit.salt] if kit.role == "site" else [kit.key]
    needed = [kit.certificate, kit.authority, startup / _STARTUP[kit.role], *private]
    for folder in (startup, root / "local", own, kit.work, kit.approvals):
        for file in (folder, *(folder.iterdir() if folder.is_dir() else ())):
            if file.is_symlink():
                raise KitError(
                    f"{file}: is a link, and a kit has none, since a link can lead out of it; put "
                    "the file or folder itself there"
                )
    for file in [*needed, kit.policy] if kit.role == "site" else needed:
        if not file.is_file():
            raise KitError(f"{file}: is missing; unpack the original kit again")
    for file in private:
        _refuse_open(file)
    return kit


def _base(role: Role) -> str:
    """Name of the certificate and key, without their endings."""
    return "server" if role == "server" else "client"


def write_kit_facts(own: Path, facts: KitFacts | None, sites: Iterable[str] | None = None) -> None:
    """Write `kit.toml` into `own`. facts: None for those of the file. sites: replace theirs."""
    known = facts or _read_facts(own.parent)
    if sites is not None:
        known = dataclasses.replace(known, sites=tuple(sites))
    text = toml_of(dataclasses.asdict(known))
    write_private(own / "kit.toml", text)


def _read_facts(root: Path) -> KitFacts:
    path = root / "gliofed" / "kit.toml"
    if not path.is_file():
        raise KitError(f"{root}: is not a kit: {path} is missing; give the folder of the kit")
    try:
        facts = build(KitFacts, read_toml(path, "kit"), str(path))
    except StudyError as error:
        raise KitError(f"{error}; unpack the original kit again") from None
    return facts


def _refuse_open(file: Path) -> None:
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KitError(f"{file}: other users may access it; expected mode 0600: chmod 600 {file}")


def check_certificate(kit: Kit, path: Path) -> None:
    """Check that the certificate in `path` is one for `kit`, valid now.

    Raises KitError where it is not valid now (with both dates and this machine's clock), not of
    this kit's name, not signed by the kit's authority, or of another key.
    """
    root, key = kit.authority, kit.key
    name = _SERVER_NAME if kit.role == "server" else kit.name
    certificate, authority = _certificate(path), _certificate(root)
    common_name = _common_name(certificate)
    if common_name != name:
        raise KitError(
            f"{path}: is the certificate of {common_name!r}; expected {name!r}: files of two kits "
            "are mixed, unpack this one again"
        )
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise KitError(
            f"{path}: is not signed by the authority in {root}; files of two federations are "
            "mixed, unpack the kit again"
        ) from None
    for file, checked in ((path, certificate), (root, authority)):
        _check_clock(file, checked)
    try:
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise KitError(f"{key}: is not a private key in PEM; unpack the kit again") from None
    if secret.public_key() != certificate.public_key():
        raise KitError(f"{key}: is not the key of {path}; unpack the kit again")


def _check_clock(path: Path, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start <= now <= end:
        return
    state, cure = (
        ("not yet valid", "set the clock")
        if now < start
        else (
            "expired",
            "set the clock if it is wrong, else ask the lead to renew the certificate: gliofed kit "
            "renew",
        )
    )
    raise KitError(
        f"{path}: {state}: valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, and "
        f"this machine's clock is {now:%Y-%m-%d %H:%M} UTC; {cure}"
    )


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise KitError(f"{path}: is not a certificate in PEM; unpack the kit again") from None


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
