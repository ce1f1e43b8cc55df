"""A site's part of the comparison of patients: its tokens, and the notice about its patients."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gliofed.data.patient_ids import MAPPING, read_mapping
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.deployment.kit import Kit
from gliofed.deployment.site_data import SiteDataPaths
from gliofed.federated.linkage.client import LinkageConfig, LocalAnnouncement, announce_patients
from gliofed.federated.linkage.messages import (
    NoticeReceipt,
    SharedNotice,
    TokensRequest,
    TokensResponse,
    load_linkage_request,
    save_receipt,
    save_tokens,
    within_limits,
)
from gliofed.federated.linkage.server import MatchKind
from gliofed.federated.linkage.site_decisions import (
    SiteDecisions,
    decide,
    read_decisions,
    write_decisions,
)
from gliofed.federated.linkage.tokens import read_salt
from gliofed.study import Study


@dataclass(frozen=True)
class SiteLinkage:
    """The comparison for one run.

    cases: all that the site has for the study. run: the folder. permitted: by the site's policy.
    """

    study: Study
    kit: Kit
    data: SiteDataPaths
    cases: Sequence[PreparedCase]
    run: Path
    permitted: Collection[MatchKind]

    def respond(self, request_file: Path, response_file: Path) -> None:
        """Read a request from one file and write the response to the other.

        Raises UpdateError for a notice that is not about this site's patients, and DataError for a
        salt, a mapping file or an id that cannot be used.
        """
        site = self.kit.name
        match load_linkage_request(request_file):
            case TokensRequest(run, nonce):
                announced = self._announced
                tokens = within_limits(announced.tokens) if announced else None
                save_tokens(response_file, TokensResponse(run, nonce, site, tokens))
            case SharedNotice(run, nonce) as notice:
                self._take(notice)
                save_receipt(response_file, NoticeReceipt(run, nonce, site))

    def _take(self, notice: SharedNotice) -> None:
        if self._announced is not None:
            decisions = decide(read_decisions(self.run), self._announced, notice)
            write_decisions(self.run, decisions)

    @property
    def decisions(self) -> SiteDecisions:
        """What was decided in this run."""
        return read_decisions(self.run)

    @property
    def used_cases(self) -> tuple[PreparedCase, ...]:
        """The cases of patients that the site uses in this run."""
        left_out = set(self.decisions.left_out)
        return tuple(c for c in self.cases if c.case.patient not in left_out)

    @cached_property
    def _announced(self) -> LocalAnnouncement | None:
        """None where the policy or the study permits no comparison."""
        by: list[MatchKind] = [b for b in self.study.data.overlap_by if b in self.permitted]
        if not by or self.study.federation.overlap == "ignore":
            return None
        path = self.data.folder / MAPPING
        config = LinkageConfig(
            by=by,
            mapping=read_mapping(path) if path.is_file() else {},
            keys={str(c.case): c.key for c in self.cases},
            store=PreparedStore(self.data.store),
        )
        salt = read_salt(self.kit.salt)
        return announce_patients(self.kit.name, [c.case for c in self.cases], salt, config)
