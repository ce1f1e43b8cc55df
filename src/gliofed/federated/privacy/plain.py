"""No mechanism: the server receives the counts and the update of each site."""

from __future__ import annotations

from pathlib import Path

from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import (
    CountsRequest,
    CountsResponse,
    TrainingRequest,
    save_counts,
    save_update,
)
from gliofed.federated.privacy.halves import SiteSetup
from gliofed.types import Update


class PlainSite:
    """The site's half."""

    in_every_round = False

    def __init__(self, setup: SiteSetup) -> None:
        self._site = setup.site

    def respond(self, request_file: Path, response_file: Path) -> bool:
        """As of `SitePrivacy`: there is no such request."""
        return False

    def save_counts(self, path: Path, request: CountsRequest, counts: LabelCounts) -> None:
        """As of `SitePrivacy`."""
        save_counts(path, CountsResponse(request.run, request.nonce, self._site, counts))

    def save_update(
        self, path: Path, request: TrainingRequest, update: Update, counts: LabelCounts
    ) -> None:
        """As of `SitePrivacy`."""
        save_update(path, update)
