"""Who takes part in a federation and where its server is: `federation.toml`.

    name = "glioma-eu"
    study = "study.toml"           # optional: the study proposed to every site

    [server]
    host = "fed.example.org"       # the name or address that sites dial
    port = 8002

    [lead]
    name = "ada@example.org"
    org = "example_university"

    [[sites]]
    name = "north-hospital"
    org = "north_hospital"

Names become common names of certificates and folders of kits, so none may be taken for another.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from gliofed.errors import StudyError
from gliofed.settings import build, read_toml
from gliofed.study import Study, load_study

SERVER: Final = "server"
LEAD: Final = "lead"
AUTHORITY: Final = "authority"
RESERVED: Final = (SERVER, LEAD, AUTHORITY, "all", "admin", "client", "localhost")
"""Names that a site may not have: folders of other kits, and what the engine calls others."""

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ORG = re.compile(r"[A-Za-z0-9_]{1,64}")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_NO_IPV6: Final = (
    "the engine dials no IPv6 address written in digits; give a name that has this address "
    "(an AAAA record, or a line of /etc/hosts)"
)
_LONGEST_COMMON_NAME: Final = 64  # RFC 5280, ub-common-name


@dataclass(frozen=True)
class ServerPlan:
    """host: name or IPv4 address that sites and the lead dial; it is in the certificate. names:
    further names and IPv4 addresses of the server, also in the certificate.

    port: the one TCP port of the federation. listen: "all" addresses of the server's machine, or
    "loopback" only, where sites connect through a tunnel or a TCP proxy on that machine.
    """

    host: str
    port: int = 8002
    org: str = "consortium"
    listen: Literal["all", "loopback"] = "all"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeadPlan:
    """name: the lead's e-mail address, the common name of the lead's certificate."""

    name: str
    org: str


@dataclass(frozen=True)
class SitePlan:
    """One hospital. name: common name of its certificate, and its kit's folder. host: the one of
    the server's names that it dials; "" for `server.host`."""

    name: str
    org: str
    host: str = ""


@dataclass(frozen=True)
class FederationPlan:
    """All parties of a federation. study: the study file proposed to every site, or none."""

    name: str
    server: ServerPlan
    lead: LeadPlan
    sites: tuple[SitePlan, ...]
    study: Path | None = None

    @property
    def site_names(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(site.name for site in self.sites)

    def proposed(self) -> Study | None:
        """The study proposed, checked; none where the plan names none. Raises StudyError."""
        return None if self.study is None else load_study(self.study)


def load_plan(path: Path) -> FederationPlan:
    """Read and check a federation file; `study` in it is relative to the file.

    Raises StudyError: no such file, TOML that does not parse, an unknown key (with the nearest
    valid one), a missing key, a value of another kind, or a name that cannot be used.
    """
    plan = parse_plan(read_toml(path, "federation"), str(path))
    if plan.study is None:
        return plan
    return dataclasses.replace(plan, study=(path.parent / plan.study).resolve())


def parse_plan(raw: Mapping[str, Any], where: str = "federation") -> FederationPlan:
    """A checked plan from plain TOML values; `where` opens each error message."""
    plan = build(FederationPlan, raw, where)
    for fault in _faults(plan):
        raise StudyError(f"{where}: {fault}")
    return plan


def _faults(plan: FederationPlan) -> Iterator[str]:
    yield from _name_faults("name", plan.name)
    yield from _host_faults(plan.server)
    for place, org in _orgs(plan):
        if not _ORG.fullmatch(org):
            yield f"{place}: expected 1 to 64 letters, digits or _, found {org!r}"
    lead = plan.lead.name
    if not _EMAIL.fullmatch(lead) or ".." in lead or len(lead) > _LONGEST_COMMON_NAME:
        yield f"lead.name: expected an e-mail address of at most 64 characters, found {lead!r}"
    if not plan.sites:
        yield "sites: name at least one hospital"
    for site in plan.sites:
        yield from _name_faults("sites", site.name)
        if site.name.lower() in RESERVED:
            yield f"sites: {site.name!r} is kept for another part of a federation"
        if site.name.lower() in (plan.name.lower(), plan.server.host.lower()):
            yield f"sites: {site.name!r} is also the name of the federation or its server"
        if site.host and site.host not in (plan.server.host, *plan.server.names):
            yield (
                f"sites: {site.name!r} dials {site.host!r}, which is not in the server's "
                "certificate: add it to server.names"
            )
    yield from _twins(plan.site_names)


def _name_faults(place: str, name: str) -> Iterator[str]:
    if not _SITE.fullmatch(name):
        yield (
            f"{place}: expected 1 to 63 letters, digits, _ or -, the first a letter or digit; "
            f"found {name!r}"
        )


def _host_faults(server: ServerPlan) -> Iterator[str]:
    for key, host in (("host", server.host), *(("names", name) for name in server.names)):
        if _is_ipv6(host):
            yield f"server.{key}: {host}: {_NO_IPV6}"
        elif not _HOST.fullmatch(host) or len(host) > 253 or _like_address(host):
            yield f"server.{key}: expected a host name or an IPv4 address, found {host!r}"
    if not 1 <= server.port <= 65535:
        yield f"server.port: expected 1 to 65535, found {server.port}"


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _like_address(host: str) -> bool:
    """Whether it looks like an IPv4 address but is none."""
    if not host.rpartition(".")[2].isdigit():
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _orgs(plan: FederationPlan) -> Iterator[tuple[str, str]]:
    yield "server.org", plan.server.org
    yield "lead.org", plan.lead.org
    for site in plan.sites:
        yield f"sites: org of {site.name!r}", site.org


def _twins(names: tuple[str, ...]) -> Iterator[str]:
    """Names that are equal without regard to the case of letters."""
    counts = Counter(name.lower() for name in names)
    for low, count in counts.items():
        if count > 1:
            same = [name for name in names if name.lower() == low]
            yield f"sites: {same} would be taken for one another; give each its own name"
