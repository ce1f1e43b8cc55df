"""All privacy mechanisms by id. A new one is a file here and a line in `MECHANISMS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from gliofed.errors import StudyError
from gliofed.federated.privacy.halves import SitePrivacy, SiteSetup
from gliofed.federated.privacy.plain import PlainSite
from gliofed.federated.server.exchange import Engine
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.updates import RoundUpdates, SeparateUpdates


@dataclass(frozen=True)
class PrivacyMechanism:
    """What happens to counts and updates between a site and the strategy.

    site, server: make the halves. sees: what the server learns of one site. cost: what is lost.
    value_bytes: of a parameter in an update, at most. source: where the mechanism comes from.
    """

    id: str
    source: str
    sees: str
    cost: str
    value_bytes: int
    site: Callable[[SiteSetup], SitePrivacy]
    server: Callable[[Engine, FederatedRun], RoundUpdates]


def _summed_site(setup: SiteSetup) -> SitePrivacy:
    with _extra():
        from gliofed.federated.privacy.site import SummedSite
    return SummedSite(setup)


def _summed_updates(engine: Engine, run: FederatedRun) -> RoundUpdates:
    with _extra():
        from gliofed.federated.server.summed import SummedUpdates
    return SummedUpdates(engine, run)


@contextmanager
def _extra() -> Iterator[None]:
    """Raise StudyError where the library for keys is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise StudyError(
            f'federation.privacy: "secure-sum" needs {error.name}: pip install gliofed[federation]'
        ) from None


MECHANISMS: Final[Mapping[str, PrivacyMechanism]] = {
    m.id: m
    for m in (
        PrivacyMechanism(
            id="none",
            source="McMahan et al. 2017, Communication-efficient learning (AISTATS)",
            sees="its counts, and its gradient or weights of every round",
            cost="nothing",
            value_bytes=4,
            site=PlainSite,
            server=SeparateUpdates,
        ),
        PrivacyMechanism(
            id="secure-sum",
            source="Bonawitz et al. 2017, Practical secure aggregation (CCS)",
            sees="nothing but the sums over all sites of a round, of three sites at least",
            cost="no robust aggregation, no bound of one site by the others, and a site that "
            "poisons the sum within the bounds cannot be named; 8 bytes a parameter are sent",
            value_bytes=8,
            site=_summed_site,
            server=_summed_updates,
        ),
    )
}


def mechanism_named(name: str) -> PrivacyMechanism:
    """The row `name`. Raises StudyError where there is none."""
    if name not in MECHANISMS:
        raise StudyError(f"federation.privacy: {name!r} is none of {sorted(MECHANISMS)}")
    return MECHANISMS[name]
