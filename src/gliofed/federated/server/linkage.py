"""The comparison of patients on the server, before the rounds of a training job.

    <folder>/linkage/<site>.safetensors   the newest tokens of each site, until the run is complete
    <folder>/linkage.json                 the sites in the order in which they keep shared patients

Every site sends tokens, which are compared for equality alone. Then each site receives which of its
own patients are at other sites, and which of them it does not use. The first site of the order
keeps a patient: external sites, then training sites, each in the order of the study, then sites
that join later. So no patient is trained on at two sites, or at one and tested at another.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.errors import CheckpointError, OverlapError, UpdateError
from gliofed.federated.cohort.suppression import SMALLEST_SHOWN
from gliofed.federated.linkage.messages import (
    LinkageRequest,
    NoticeReceipt,
    SharedNotice,
    TokensRequest,
    TokensResponse,
    load_receipt,
    load_tokens,
    save_linkage_request,
)
from gliofed.federated.linkage.server import (
    SharedPatient,
    TokenAnnouncement,
    find_pairs,
    left_out,
    linked_groups,
    shared_counts,
    shared_rows,
)
from gliofed.federated.messages import new_nonce
from gliofed.federated.server.exchange import Engine, SiteReply, exchange_files
from gliofed.federated.server.same_sites import EngineFactory
from gliofed.runtime.files import write_text
from gliofed.study import Study

ORDER: Final = "linkage.json"
MIN_EQUAL_IDS: Final = 5
"""Equal ids of two sites from which they may be due to the same numbering."""
_TOKENS: Final = "linkage"


@dataclass(frozen=True)
class PatientLinkage:
    """The result of a comparison.

    compared: sites whose patients were compared. shared: "north and south" to the number of
    patients that both have, as text; pairs that share none are absent. patients: number of shared
    patients of all sites together; not to be shown. uncompared: each other site and the reason.
    excluded: those of them that take no part before they are compared, and the same reason.
    """

    compared: tuple[str, ...] = ()
    shared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patients: int = 0
    uncompared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    excluded: Mapping[str, str] = dataclasses.field(default_factory=dict)


def count_text(count: int) -> str:
    """A count as it is shown: one from 1 to 10 is not.

    >>> count_text(0), count_text(1), count_text(10), count_text(11)
    ('0', '1 to 10', '1 to 10', '11')
    """
    return f"1 to {SMALLEST_SHOWN - 1}" if 0 < count < SMALLEST_SHOWN else str(count)


def compare_patients(
    make_engine: EngineFactory, study: Study, run: str, folder: Path
) -> PatientLinkage:
    """Compare the patients of all sites, and send each site what concerns it.

    A site that does not respond, or does not confirm, is excluded; a site whose policy forbids the
    comparison takes part. Raises OverlapError where patients are shared and the study refuses that,
    or where two sites number their patients in the same way; and CheckpointError where the order in
    `folder` is damaged or of another run.
    """
    sites = (*study.data.external, *study.data.train)
    answers, failures = _collect_tokens(make_engine(sites), study, run, folder)
    forbidden = [site for site, tokens in answers.items() if tokens is None]
    tokens = {**_kept_tokens(folder, study, answers), **_present(answers)}
    pairs = find_pairs(list(tokens.values()))
    order = _order(folder, run, [s for s in sites if s in tokens])
    _require_plausible_ids(pairs, tokens)
    shared = shared_counts(pairs)
    refuse = study.federation.overlap == "refuse"
    out = frozenset() if refuse else left_out(order, pairs)
    present = [s for s in sites if s in _present(answers)]
    for site in present:
        notice = SharedNotice(run, new_nonce(), site, shared_rows(site, pairs, out))
        failure = _send_notice(make_engine([site]), notice, folder)
        if failure:
            failures[site] = failure
    if shared and refuse:
        raise OverlapError(_refusal(shared))
    reasons = dict.fromkeys(forbidden, "the policy of the site does not permit it")
    excluded = {site: f"its patients were not compared: {why}" for site, why in failures.items()}
    return PatientLinkage(
        compared=tuple(s for s in present if s not in failures),
        shared={f"{a} and {b}": count_text(n) for (a, b), n in sorted(shared.items())},
        patients=_number_of_shared(pairs),
        uncompared=dict(sorted({**reasons, **failures}.items())),
        excluded=excluded,
    )


def forget_tokens(folder: Path) -> None:
    """Delete the tokens of a run that is complete."""
    shutil.rmtree(folder / _TOKENS, ignore_errors=True)


def _present(answers: Mapping[str, TokenAnnouncement | None]) -> dict[str, TokenAnnouncement]:
    return {site: tokens for site, tokens in answers.items() if tokens is not None}


def _collect_tokens(
    engine: Engine, study: Study, run: str, folder: Path
) -> tuple[dict[str, TokenAnnouncement | None], dict[str, str]]:
    """Each site's tokens, None where its policy forbids them; and the reason of each other site."""
    request = TokensRequest(run, new_nonce())
    answers: dict[str, TokenAnnouncement | None] = {}
    failures: dict[str, str] = {}
    (folder / _TOKENS).mkdir(mode=0o700, parents=True, exist_ok=True)
    with _exchange(engine, request, folder) as replies:
        for reply in replies:
            try:
                file, kept = _file_of(reply), _tokens_file(folder, reply.site)
                response = _check_tokens(reply.site, request, file, study.federation.max_cases)
                if response.tokens is not None:
                    file.replace(kept)
                    response = load_tokens(kept, study.federation.max_cases)
                answers[reply.site] = response.tokens
            except UpdateError as error:
                failures[reply.site] = str(error)
    return answers, failures


def _file_of(reply: SiteReply) -> Path:
    if reply.response is None:
        raise UpdateError(reply.failure)
    return reply.response


def _exchange(
    engine: Engine, request: LinkageRequest, folder: Path
) -> AbstractContextManager[Iterator[SiteReply]]:
    return exchange_files(engine, folder, lambda path: save_linkage_request(path, request))


def _check_tokens(site: str, request: TokensRequest, file: Path, most: int) -> TokensResponse:
    try:
        response = load_tokens(file, most)
        _check_origin(site, request, response)
    except UpdateError as error:
        raise UpdateError(f"tokens of patients refused: {error}") from None
    return response


def _check_origin(
    site: str, request: LinkageRequest, response: TokensResponse | NoticeReceipt
) -> None:
    if (response.run, response.nonce) != (request.run, request.nonce):
        raise UpdateError("it responds to another request (its run or nonce differs)")
    if response.site != site:
        raise UpdateError("it has the name of another site")


def _send_notice(engine: Engine, notice: SharedNotice, folder: Path) -> str:
    """Send a notice to its site; the reason where the site did not confirm it, else ""."""
    with _exchange(engine, notice, folder) as replies:
        for reply in replies:
            try:
                _check_origin(notice.site, notice, load_receipt(_file_of(reply)))
            except UpdateError as error:
                return str(error)
    return ""


def _tokens_file(folder: Path, site: str) -> Path:
    return folder / _TOKENS / f"{site}.safetensors"


def _kept_tokens(
    folder: Path, study: Study, answered: Collection[str]
) -> dict[str, TokenAnnouncement]:
    """The tokens that sites without an answer sent before; their patients stay compared."""
    out = {}
    for site in {*study.data.train, *study.data.external} - set(answered):
        path = _tokens_file(folder, site)
        with suppress(FileNotFoundError, UpdateError):  # none, or damaged: the site sends new ones
            tokens = load_tokens(path, study.federation.max_cases).tokens
            if tokens is not None:
                out[site] = tokens
    return out


def _order(folder: Path, run: str, sites: Sequence[str]) -> tuple[str, ...]:
    """The order of `folder` with `sites` that are new at its end; it is written again."""
    path = folder / ORDER
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        before, of_run = tuple(str(s) for s in raw["order"]), raw["run"]
    except FileNotFoundError:
        before, of_run = (), run
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); restore it from a copy, or start a new run"
        ) from None
    if of_run != run:
        raise CheckpointError(f"{path}: belongs to another run; choose another folder")
    order = (*before, *(s for s in sites if s not in before))
    write_text(path, json.dumps({"run": run, "order": order}))
    return order


def _number_of_shared(pairs: Sequence[SharedPatient]) -> int:
    links = [(p.first, p.second) for p in pairs if p.first.site != p.second.site]
    return len(set(linked_groups(links).values()))


def _require_plausible_ids(
    pairs: Sequence[SharedPatient], tokens: Mapping[str, TokenAnnouncement]
) -> None:
    """Raise OverlapError where two sites probably number their patients in the same way.

    So it is where more than half of the patients of one have an id of the other, and not its scan.
    """
    alike: dict[tuple[str, str], int] = Counter(
        (p.first.site, p.second.site)
        for p in pairs
        if p.by == ("id",) and p.first.site != p.second.site
    )
    for (a, b), equal in alike.items():
        smaller = min(tokens[a].patients, tokens[b].patients)
        if equal >= MIN_EQUAL_IDS and equal > smaller / 2:
            raise OverlapError(
                f"more than half of the patients of {a} or of {b} have an id that the other site "
                "uses, too. If each site numbers its patients itself, equal ids mean nothing: set "
                'overlap_by = ["image"] under [data]. Else remove these patients at one site'
            )


def _refusal(shared: Mapping[tuple[str, str], int]) -> str:
    sites = "; ".join(f"{a} and {b} share {count_text(n)}" for (a, b), n in sorted(shared.items()))
    return (
        f"the same patients are at two sites: {sites}. Each site reads its own in "
        "gliofed/work/RUN/shared_patients.json of its kit. Remove them at one site, or set "
        'overlap = "drop" under [federation] to have one site use them'
    )
