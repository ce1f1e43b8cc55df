"""A site as the server has it, sent to the lead on request; and the versions that a site sends."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gliofed.version import __version__

SITES: Final = "gliofed_sites"
"""The table of sites in the server's reply to the lead."""
VERSIONS: Final = "gliofed"
"""The field of a registration, and of the reply to it, with the sender's versions."""
SITES_LOGGER: Final = "gliofed.sites"
"""The logger with a line for each event of a site that its screen or the audit log has."""
_VERSION: Final = re.compile(r"\d{1,4}(?:\.\d{1,4}){1,3}[A-Za-z0-9.+]{0,30}")


@dataclass(frozen=True)
class Versions:
    """Versions of one installation; "" where not known."""

    gliofed: str = ""
    torch: str = ""

    @property
    def text(self) -> str:
        """Both, for a person."""
        return f"gliofed {self.gliofed or 'unknown'}, torch {self.torch or 'unknown'}"


@dataclass(frozen=True)
class ConnectedSite:
    """A site that is connected to the server.

    last_message, registered: times by the server's clock, seconds since 1970. certificate_end: the
    same, of the certificate it registered with, 0 where not known. job, failure: the newest job
    that it could not run, and the reason code (`failed_sites.FAILURES`); "" for none since it
    registered.
    """

    last_message: float
    registered: float = 0.0
    certificate_end: float = 0.0
    versions: Versions = Versions()
    job: str = ""
    failure: str = ""


def own_versions() -> dict[str, str]:
    """The versions of this installation."""
    return {"gliofed": __version__, "torch": importlib.metadata.version("torch")}


def parse_versions(sent: object) -> Versions:
    """Versions as another party sent them; values of another form count as not known."""
    values = sent if isinstance(sent, Mapping) else {}

    def one(name: str) -> str:
        value = values.get(name)
        return value if isinstance(value, str) and _VERSION.fullmatch(value) else ""

    return Versions(one("gliofed"), one("torch"))


def parse_site(row: Mapping[str, Any]) -> ConnectedSite:
    """A row of the server's table `SITES`."""
    return ConnectedSite(
        float(row["last_message"]),
        float(row["registered"]),
        float(row["certificate_end"]),
        parse_versions(row["versions"]),
        str(row["job"]),
        str(row["failure"]),
    )
