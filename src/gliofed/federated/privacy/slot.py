"""The place of a request in the secret sums of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SLOTS: Final = 20
"""Sums that one agreement of keys is for; the keys of each are used once."""
FEWEST_SITES: Final = 3
"""Sites of a sum at least: of two, each could compute the update of the other."""
MOST_SITES: Final = 64
"""Sites of a sum at most: each shares a mask with every other one."""


def threshold(sites: int) -> int:
    """Sites that have to help to open a sum, of `sites` that agreed on keys: above two thirds.

    A server that tells sites different things, together with up to a third of the sites, can then
    not collect both secrets of a site (`gliofed.federated.privacy.site`).

    >>> [threshold(n) for n in (3, 4, 7, 16)]
    [3, 3, 5, 11]
    """
    return 2 * sites // 3 + 1


@dataclass(frozen=True)
class SumSlot:
    """agreement: the nonce of the request for keys. slot: from 0. members: the sites whose masks
    cancel, in the order of their names."""

    agreement: str
    slot: int
    members: tuple[str, ...]

    @property
    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "agreement": self.agreement,
            "slot": self.slot,
            "members": list(self.members),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> SumSlot | None:
        """From plain JSON values that were checked."""
        if plain is None:
            return None
        return cls(plain["agreement"], plain["slot"], tuple(plain["members"]))
