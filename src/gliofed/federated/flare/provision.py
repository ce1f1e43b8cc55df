"""Start-up kits for a federation on FLARE, made with FLARE's own provisioner.

Transport is FLARE's `grpc` driver with mutual TLS on one port. gRPC requires TLS 1.2 or later,
checks the server's name against its certificate, and does its handshakes outside the thread that
accepts connections. FLARE's `tcp` driver also requires 1.2, but it compares no name, and one silent
peer blocks all others. The lead gets FLARE's role `lead`, the smallest role that may submit and
abort jobs (see `rules`); `project_admin` has all rights everywhere.

Certificates state their use. Only the server's is valid for a server, so that no site can act as
the server towards another site.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from nvflare.lighter.constants import CtxKey
from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Participant, Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner
from nvflare.lighter.spec import Builder

from gliofed.errors import KitError
from gliofed.federated.flare import rules

AUTHORITY_DAYS: Final = 3650
"""Days that the authority's certificate is valid."""
CERTIFICATE_DAYS: Final = 360
"""Days that the certificate of a party is valid, unless another number is given."""

SERVER: Final = "server"
"""The common name of the server's certificate; FLARE calls the server's end by this name too."""


@dataclass(frozen=True)
class Identity:
    """name: common name of a certificate. org: the organisation in it. host: of a site, the name by
    which it reaches the server; "" for the server's first one."""

    name: str
    org: str
    host: str = ""


@dataclass(frozen=True)
class KitRecipients:
    """The parties that get a kit. host, port: of the server. names: further names and addresses in
    its certificate. loopback: listen on 127.0.0.1 only. days: that the certificates are valid."""

    federation: str
    host: str
    port: int
    loopback: bool
    server_org: str
    lead: Identity
    sites: tuple[Identity, ...]
    names: tuple[str, ...] = ()
    days: int = CERTIFICATE_DAYS


@dataclass(frozen=True)
class Authority:
    """The certificate authority of one federation, PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Kits:
    """The kit folders by common name, and the authority that signed the certificates."""

    folders: dict[str, Path]
    authority: Authority


def build_kits(parties: KitRecipients, work: Path, authority: Authority | None = None) -> Kits:
    """Make a kit for each party below `work`, an empty folder.

    authority: of the federation, for kits of new sites; None makes a new one. Raises KitError with
    the output of FLARE's provisioner where it fails.
    """
    project = _project(parties, authority)
    builders = [
        WorkspaceBuilder(),
        StaticFileBuilder(scheme="grpc", require_signed_jobs=True),
        _KitRules(parties),
        _Certificates(parties.days),
    ]
    log = _ProvisionLog()
    printed = io.StringIO()  # tracebacks
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        context = Provisioner(root_dir=str(work), builders=builders).provision(project, logger=log)
    if context.get(CtxKey.BUILD_ERROR):
        raise KitError(f"the kits could not be made: {'; '.join(log.errors) or printed.getvalue()}")
    root = Path(context.get_result_location())
    folders = {p.name: root / p.name for p in project.get_all_participants()}
    return Kits(folders, authority or _authority(context))


def _project(parties: KitRecipients, authority: Authority | None) -> Project:
    root: dict[str, Any] = {}
    if authority is not None:
        root["serialized_root_cert"] = authority.certificate.encode()
        root["root_private_key"] = serialization.load_pem_private_key(
            authority.key.encode(), password=None
        )
    project = Project(parties.federation, "", **root)
    address = {
        "fed_learn_port": parties.port,
        "default_host": parties.host,
        "host_names": list(parties.names),
    }
    project.set_server(SERVER, parties.server_org, address)
    for site in parties.sites:
        dialled = {"connect_to": {"host": site.host}} if site.host else {}
        project.add_client(site.name, site.org, {"allow_log_streaming": False, **dialled})
    project.add_admin(parties.lead.name, parties.lead.org, {"role": rules.ROLE})
    return project


def _authority(context: ProvisionContext) -> Authority:
    key = context[CtxKey.ROOT_PRI_KEY].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate = context[CtxKey.ROOT_CERT].public_bytes(serialization.Encoding.PEM)
    return Authority(certificate.decode(), key.decode())


class _Certificates(CertBuilder):  # type: ignore[misc]
    """FLARE's certificates with the extensions that limit their use, valid for `days` days."""

    def __init__(self, days: int) -> None:
        super().__init__(root_valid_days=AUTHORITY_DAYS)
        self._days = days

    def _generate_cert(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("ca"):
            kwargs["valid_days"] = self._days
            uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
            if kwargs.get("server") is not None:
                uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
            kwargs["extra_extensions"] = [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (x509.ExtendedKeyUsage(uses), False),
            ]
        return CertBuilder._generate_cert(*args, **kwargs)


class _KitRules(Builder):  # type: ignore[misc]
    """Writes `rules` into each kit, and removes FLARE's samples, scripts and defaults."""

    def __init__(self, parties: KitRecipients) -> None:
        super().__init__()
        self._parties = parties

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Called by the provisioner after the files of FLARE's templates."""
        self._server(project.get_server(), ctx)
        for site in project.get_clients():
            self._site(site, ctx)
        for lead in project.get_admins():
            _remove(Path(ctx.get_kit_dir(lead)), ("fl_admin.sh", "system_info.ipynb", "readme.txt"))

    def _server(self, server: Participant, ctx: ProvisionContext) -> None:
        local = _clear_local_folder(server, ctx)
        _write(local / "resources.json", rules.server_resources())
        _write(local / "authorization.json", rules.rights(server=True))
        path = Path(ctx.get_kit_dir(server)) / "fed_server.json"
        startup = json.loads(path.read_text(encoding="utf-8"))
        address = "127.0.0.1" if self._parties.loopback else "0.0.0.0"  # noqa: S104 (as asked)
        for server_entry in startup["servers"]:
            server_entry["service"]["target"] = f"{address}:{self._parties.port}"
        _write(path, startup)

    def _site(self, site: Participant, ctx: ProvisionContext) -> None:
        local = _clear_local_folder(site, ctx)
        _write(local / "resources.json", rules.site_resources())
        _write(local / "authorization.json", rules.rights(server=False))


def _clear_local_folder(party: Participant, ctx: ProvisionContext) -> Path:
    """Empty the party's `local/`, delete scripts, and write the logging rules; returns `local/`."""
    _remove(Path(ctx.get_kit_dir(party)), ("start.sh", "sub_start.sh", "stop_fl.sh"))
    _remove(Path(ctx.get_ws_dir(party)), ("readme.txt",))
    local = Path(ctx.get_local_dir(party))
    _remove(local, (path.name for path in local.iterdir()))
    _write(local / "log_config.json", rules.logging_rules())
    return local


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in list(names):
        (folder / name).unlink(missing_ok=True)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


class _ProvisionLog:
    """Messages of the provisioner, which are not printed."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def debug(self, message: str) -> None:
        """Dropped."""

    def info(self, message: str) -> None:
        """Dropped."""

    def warning(self, message: str) -> None:
        """Dropped."""

    def error(self, message: str) -> None:
        """Kept for the text of a KitError."""
        self.errors.append(message)
