"""What the lead is to know of the connected sites before it stops them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from gliofed.deployment.certificate_dates import certificate_warning
from gliofed.federated.flare.connected_site import ConnectedSite, own_versions, parse_versions


def site_warnings(sites: Mapping[str, ConnectedSite], now: datetime) -> Iterator[str]:
    """Lines on certificates that end soon, and on versions other than those here."""
    own = parse_versions(own_versions())
    for name, site in sorted(sites.items()):
        if site.certificate_end:
            end = datetime.fromtimestamp(site.certificate_end, UTC)
            warning = certificate_warning(name, end, now)
            if warning:
                yield warning
        if site.versions != own:
            yield f"{name} has {site.versions.text}; here are {own.text}"
