"""What a privacy mechanism does at a site; at the server it is a `RoundUpdates`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import CountsRequest, TrainingRequest
from gliofed.federated.privacy.identity import Identity
from gliofed.study import Study
from gliofed.types import Update


@dataclass(frozen=True)
class SiteSetup:
    """A site in a run. folder: of what it keeps between rounds. min_sites: of its policy."""

    site: str
    study: Study
    folder: Path
    identity: Identity
    min_sites: int


class SitePrivacy(Protocol):
    """The site's half: from what the policy lets leave to the message that leaves."""

    @property
    def in_every_round(self) -> bool:
        """Whether a site without a case of a batch responds as one with cases."""
        ...

    def respond(self, request_file: Path, response_file: Path) -> bool:
        """Respond to a request of the mechanism itself; False for any other request."""
        ...

    def save_counts(self, path: Path, request: CountsRequest, counts: LabelCounts) -> None:
        """Counts as a file."""
        ...

    def save_update(
        self, path: Path, request: TrainingRequest, update: Update, counts: LabelCounts
    ) -> None:
        """An update as a file. counts: of all training cases, as they may leave."""
        ...
