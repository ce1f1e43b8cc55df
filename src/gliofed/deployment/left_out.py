"""Sites that could not run a training job, and when the supervisor tries each again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from gliofed.federated.flare.connected_site import ConnectedSite
from gliofed.federated.flare.failed_sites import FAILURES

LONGEST_WAIT: Final = 3600.0
"""Seconds until a site is tried again, at most."""


@dataclass(frozen=True)
class SiteFailure:
    """The newest failure of a site. job: that it could not run. registered: when the site had
    joined, by the server's clock. times: failures since its last round. until: of our clock."""

    job: str
    reason: str
    registered: float
    times: int
    until: float
    wait: float

    @property
    def text(self) -> str:
        """For the lead."""
        what = FAILURES.get(self.reason, "it could not run the training job")
        minutes = f"{self.wait / 60:.0f} min"
        return f"{what}; left out, and tried again when it joins anew or after {minutes}"


@dataclass
class LeftOutSites:
    """A site that failed is left out until it joins anew, or for a time that doubles each time.

    first_wait: seconds after the first failure.
    """

    first_wait: float = 300.0
    clock: Callable[[], float] = time.monotonic
    _failures: dict[str, SiteFailure] = field(default_factory=dict)

    def note(self, job: str, sites: Mapping[str, ConnectedSite]) -> Mapping[str, str]:
        """Note the sites that could not run `job`. Site to reason code, of those not noted yet."""
        new = {}
        for name, site in sites.items():
            known = self._failures.get(name)
            if not site.failure or site.job != job or (known is not None and known.job == job):
                continue
            times = known.times + 1 if known is not None else 1
            wait = min(self.first_wait * 2 ** (times - 1), LONGEST_WAIT)
            until = self.clock() + wait
            self._failures[name] = SiteFailure(
                job, site.failure, site.registered, times, until, wait
            )
            new[name] = site.failure
        return new

    def took_part(self, job: str, sites: Collection[str]) -> None:
        """Forget failures in earlier jobs of sites that have made a round of `job`."""
        for name in sites:
            if name in self._failures and self._failures[name].job != job:
                del self._failures[name]

    def due(self, job: str, sites: Mapping[str, ConnectedSite]) -> set[str]:
        """The connected sites that failed in `job` and are to be tried in another one now."""
        failed = {name for name, failure in self._failures.items() if failure.job == job}
        return failed & sites.keys() - self.out(sites).keys()

    def out(self, sites: Mapping[str, ConnectedSite]) -> Mapping[str, str]:
        """The connected sites that are left out now, and why."""
        now = self.clock()
        return {
            name: failure.text
            for name, failure in sorted(self._failures.items())
            if name in sites
            and sites[name].registered <= failure.registered
            and now < failure.until
        }
