"""A valid message of every kind and its reader, for property tests and for fuzzing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from test_calibrate import answers

from gliofed.calibration.calibrator import fit_calibration
from gliofed.calibration.site_statistics import CalibrationCases
from gliofed.calibration.statistics import StatisticsRequest
from gliofed.evaluation.by_site_sums.sums import score_sums
from gliofed.federated.cohort.table import VARIABLES, CohortCounts, pack_cohort, read_cohort
from gliofed.federated.fusion.messages import (
    FusionRequest,
    FusionResponse,
    load_fusion_request,
    save_fusion,
    save_fusion_request,
)
from gliofed.federated.fusion.site import FusionCases, SiteCases
from gliofed.federated.fusion.sums import INPUT_NAMES, WIDTHS, FitPlace, SumsRequest
from gliofed.federated.gate import (
    UpdateGate,
    check_counts,
    check_fusion,
    check_scores,
    check_statistics,
)
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.linkage import messages as linkage_messages
from gliofed.federated.linkage.messages import (
    NoticeReceipt,
    SharedNotice,
    TokensRequest,
    TokensResponse,
    load_linkage_request,
    load_tokens,
    save_linkage_request,
    save_tokens,
)
from gliofed.federated.linkage.server import SharedRow, TokenAnnouncement
from gliofed.federated.messages import (
    CalibrationRequest,
    CountsRequest,
    CountsResponse,
    Request,
    ScoresRequest,
    ScoresResponse,
    StatisticsResponse,
    TrainingRequest,
    load_request,
    save_counts,
    save_request,
    save_scores,
    save_statistics,
    save_update,
    training_request_of,
)
from gliofed.federated.model_delivery import (
    ModelReceipt,
    ModelRequest,
    check_receipt,
    load_model_request,
    save_model_request,
    save_receipt,
)
from gliofed.federated.named_tensors import layout_of, layout_of_kinds
from gliofed.federated.privacy.figures import Figures
from gliofed.federated.privacy.keys import PublicKeys
from gliofed.federated.privacy.messages import (
    KeysRequest,
    KeysResponse,
    MaskedSum,
    SharesRequest,
    SharesResponse,
    UnmaskRequest,
    UnmaskResponse,
    load_keys,
    load_masked,
    load_opening,
    load_shares,
    load_sum_request,
    save_keys,
    save_masked,
    save_opening,
    save_shares,
    save_sum_request,
)
from gliofed.federated.privacy.slot import SLOTS, SumSlot
from gliofed.federated.wire import read_note
from gliofed.markers import MARKERS
from gliofed.radiomics.input_names import MASK_FEATURES
from gliofed.study import CalibrationConfig, FederationConfig
from gliofed.types import SEQUENCES, Case, Person, Stat, Update

NONCE = "0" * 32
LIMITS = FederationConfig(method="scaffold", max_cases=1000)
MODEL = {"up.0.weight": torch.tensor([3.0, 0.0]), "mask.weight": torch.tensor([[4.0]])}
CONTROL = {"control": {name: 0.5 * value for name, value in MODEL.items()}}
TRAINING = TrainingRequest(
    "run", NONCE, 3, 9, 2, MODEL, {"idh": (1.0, 0.5)}, 40, {"idh": 20}, CONTROL
)
COUNTS = CountsRequest("run", NONCE, SumSlot(NONCE, 0, ("a", "b", "c")))
SCORES = ScoresRequest("run", NONCE, 9, MODEL)


@dataclass(frozen=True)
class Sample:
    """data: a valid message. read: its reader, which may raise UpdateError and nothing else."""

    data: bytes
    read: Callable[[bytes], object]


def samples(folder: Path) -> Mapping[str, Sample]:
    """By key of `message_table.MESSAGES`, and "note" for the note of a training request alone.

    folder: of the files that readers read.
    """
    return {
        **_requests(folder),
        **_responses(folder),
        **_fusion(folder),
        **_linkage(folder),
        **_model_and_cohort(folder),
        **_secret_sums(folder),
    }


def _statistics() -> tuple[StatisticsRequest, CalibrationCases]:
    """The first request for the sums of a fit, and a site that responds to it."""
    cases, asked = CalibrationCases(answers(25, "c", 3)), []

    def exchange(request: StatisticsRequest) -> object:
        asked.append(request)
        return {"c": cases.respond(request)}

    fit_calibration(exchange, CalibrationConfig())
    return next(r for r in asked if r.step == "scale"), cases


def _file(folder: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = folder / "message"

    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return write_and_read


def _requests(folder: Path) -> Mapping[str, Sample]:
    state = layout_of_kinds(layout_of(MODEL), ("control",))

    def sample(request: Request) -> Sample:
        save_request(folder / "request", request)
        data = (folder / "request").read_bytes()
        return Sample(
            data,
            _file(
                folder,
                lambda p: load_request(p, layout_of(MODEL), state),
            ),
        )

    calibration = CalibrationRequest("run", NONCE, 9, _statistics()[0], None)
    training = sample(TRAINING)
    note = json.dumps(read_note(training.data)).encode()
    return {
        "CountsRequest": sample(COUNTS),
        "TrainingRequest": training,
        "ScoresRequest": sample(SCORES),
        "CalibrationRequest": sample(calibration),
        "note": Sample(note, lambda data: training_request_of(data.decode(errors="replace"))),
    }


def _responses(folder: Path) -> Mapping[str, Sample]:
    path = folder / "response"

    def sample(save: Callable[[Path, object], None], sent: object, read: object) -> Sample:
        save(path, sent)
        return Sample(path.read_bytes(), _file(folder, read))

    labelled = {"mask": 9, **{m.id: 5 for m in MARKERS}}
    stats = {"mask": Stat(2.0, 10), "dice": Stat(3.5, 10), "skipped": Stat(1, 1)}
    update = Update("run", 3, NONCE, "a", MODEL, 10, labelled, stats, CONTROL)
    counts = LabelCounts(9, 5, {m.id: (2,) * len(m.classes) for m in MARKERS})
    question, cases = _statistics()
    calibration = CalibrationRequest("run", NONCE, 9, question, None)
    answer = StatisticsResponse("run", NONCE, "a", cases.respond(question))
    scores = ScoresResponse("run", NONCE, "a", score_sums(answers(25, "a", 3)))
    return {
        "Update": sample(save_update, update, lambda p: UpdateGate(TRAINING, LIMITS).check("a", p)),
        "CountsResponse": sample(
            save_counts,
            CountsResponse("run", NONCE, "a", counts),
            lambda p: check_counts("a", COUNTS, p, LIMITS),
        ),
        "ScoresResponse": sample(
            save_scores, scores, lambda p: check_scores("a", SCORES, p, LIMITS)
        ),
        "StatisticsResponse": sample(
            save_statistics, answer, lambda p: check_statistics("a", calibration, p, LIMITS)
        ),
    }


def _fusion(folder: Path) -> Mapping[str, Sample]:
    results = answers(25, "a", 3)
    training = [Case(r.case, "a", r.patient, {}, None, r.labels, person=Person()) for r in results]
    mask = {str(c): np.arange(len(MASK_FEATURES), dtype=float) for c in training}
    places = (
        FitPlace("mask", (0.1,) * WIDTHS["mask"], 1),
        FitPlace("weights", (0.5,) * WIDTHS["weights"]),
    )
    none, one = (0.0,) * len(INPUT_NAMES), (1.0,) * len(INPUT_NAMES)
    sums = SumsRequest("fit", none, one, none, fits=places)
    request = FusionRequest("run", NONCE, 9, sums, MODEL)
    path = folder / "fusion"
    save_fusion_request(path, request)
    asked = path.read_bytes()
    own = FusionCases(SiteCases("a", training, results, mask)).respond(sums)
    save_fusion(path, FusionResponse("run", NONCE, "a", own))
    return {
        "FusionRequest": Sample(
            asked, _file(folder, lambda p: load_fusion_request(p, layout_of(MODEL)))
        ),
        "FusionResponse": Sample(
            path.read_bytes(), _file(folder, lambda p: check_fusion("a", request, p, LIMITS))
        ),
    }


def _linkage(folder: Path) -> Mapping[str, Sample]:
    path = folder / "linkage"

    def sample(save: Callable[[Path, object], None], sent: object, read: object) -> Sample:
        save(path, sent)
        return Sample(path.read_bytes(), _file(folder, read))

    tokens = TokenAnnouncement(
        site="a",
        patients=2,
        ids=np.arange(32, dtype=np.uint8).reshape(2, 16),
        id_owner=np.array([0, 1], np.int32),
        images=np.ones((1, len(SEQUENCES), 8, 512), np.int32),
        shown=np.ones((1, len(SEQUENCES)), np.uint8),
        image_owner=np.array([1], np.int32),
    )
    notice = SharedNotice("run", NONCE, "a", (SharedRow(1, 2, False), SharedRow(7, 1, True)))
    return {
        "TokensRequest": sample(
            save_linkage_request, TokensRequest("run", NONCE), load_linkage_request
        ),
        "TokensResponse": sample(
            save_tokens, TokensResponse("run", NONCE, "a", tokens), lambda p: load_tokens(p, 100)
        ),
        "SharedNotice": sample(save_linkage_request, notice, load_linkage_request),
        "NoticeReceipt": sample(
            linkage_messages.save_receipt,
            NoticeReceipt("run", NONCE, "a"),
            linkage_messages.load_receipt,
        ),
    }


def _model_and_cohort(folder: Path) -> Mapping[str, Sample]:
    path = folder / "model"
    request = ModelRequest("run", NONCE, "model", {"recipe.json": b"{}", "card.md": b"# card"})
    save_model_request(path, request)
    model = path.read_bytes()
    save_receipt(path, ModelReceipt("run", NONCE, "a", "model"))
    counts = {v.name: {(v.categories or ("scanner",))[0]: 4} for v in VARIABLES}
    return {
        "ModelRequest": Sample(model, _file(folder, load_model_request)),
        "ModelReceipt": Sample(
            path.read_bytes(), _file(folder, lambda p: check_receipt("a", request, p) or True)
        ),
        "CohortCounts": Sample(
            pack_cohort(CohortCounts(4, counts), "a"), lambda d: read_cohort("a", d, 100)
        ),
    }


def _secret_sums(folder: Path) -> Mapping[str, Sample]:
    """Of three sites, with keys and shares of any bytes."""
    path = folder / "sum"

    def sample(save: Callable[[Path, object], None], sent: object, read: object) -> Sample:
        save(path, sent)
        return Sample(path.read_bytes(), _file(folder, read))

    keys = [
        PublicKeys(s, b"e" * 32, (b"m" * 32,) * SLOTS, (b"c" * 32,) * SLOTS, "ab", "PEM")
        for s in "abc"
    ]
    slot = SumSlot(NONCE, 3, ("a", "b", "c"))
    sealed, digests = (torch.ones(SLOTS, 3, *s, dtype=torch.uint8) for s in ((148,), (2, 32)))
    masked = {name: torch.ones(t.shape, dtype=torch.int64) for name, t in MODEL.items()}
    masked["figures"] = Figures(
        LabelCounts(9, 5, {m.id: (2,) * len(m.classes) for m in MARKERS})
    ).encoded()
    origin = ("run", NONCE, "a")
    requests = {
        "KeysRequest": KeysRequest("run", NONCE),
        "SharesRequest": SharesRequest("run", NONCE, NONCE, tuple(keys)),
        "UnmaskRequest": UnmaskRequest(
            "run", NONCE, slot, ("a", "c"), torch.ones(3, 3, 148, dtype=torch.uint8)
        ),
    }
    opening = UnmaskResponse(*origin, ("b",), torch.ones(3, 66, dtype=torch.uint8))
    return {
        **{k: sample(save_sum_request, r, load_sum_request) for k, r in requests.items()},
        "KeysResponse": sample(save_keys, KeysResponse(*origin, keys[0]), load_keys),
        "SharesResponse": sample(
            save_shares, SharesResponse(*origin, sealed, digests), lambda p: load_shares(p, 3)
        ),
        "MaskedSum": sample(
            save_masked, MaskedSum(*origin, masked), lambda p: load_masked(p, MODEL)
        ),
        "UnmaskResponse": sample(save_opening, opening, lambda p: load_opening(p, 3)),
    }
