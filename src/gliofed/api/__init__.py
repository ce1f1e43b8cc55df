"""The public verbs. Each is what the command of the same name does.

A verb that trains, or that writes what goes between sites, imports torch when it is called: the
others need not wait for it.
"""

from gliofed.api.consortium import (
    join,
    look,
    provision,
    serve,
    start,
    status,
    stop,
    try_out,
    withdraw,
)
from gliofed.api.scans import check, correct, export, image, inspect, intake, prepare, receive
from gliofed.data.audit import DatasetReading
from gliofed.deployment.approval import (
    approve,
    consent,
    network_size,
    new_key,
    read_log,
    verify_log,
)
from gliofed.deployment.model_upgrade import export_model, read_model, upgrade_model
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.radiomics import Extracted, extract_features, try_features
from gliofed.experiments.scores import score
from gliofed.experiments.studies import cohort, demo, overlap, phantom, run
from gliofed.federated.governance.approval import Approval
from gliofed.federated.governance.audit_verification import LogVerdict
from gliofed.federated.governance.hash_chain import LogLine
from gliofed.inference.corrections import CorrectedLabel, Correction
from gliofed.inference.mask_export import ExportedMask, SeriesLocation
from gliofed.inference.predict import predict, report, view
from gliofed.preprocessing.dataset import DatasetPreparation
from gliofed.preprocessing.workers import CasePreparation
from gliofed.validation.check import CheckResult

__all__ = [
    "Approval",
    "CasePreparation",
    "CheckResult",
    "CorrectedLabel",
    "Correction",
    "DatasetPreparation",
    "DatasetReading",
    "ExportedMask",
    "Extracted",
    "FinishedRun",
    "LogLine",
    "LogVerdict",
    "SeriesLocation",
    "approve",
    "check",
    "cohort",
    "consent",
    "correct",
    "demo",
    "export",
    "export_model",
    "extract_features",
    "image",
    "inspect",
    "intake",
    "join",
    "look",
    "network_size",
    "new_key",
    "overlap",
    "phantom",
    "predict",
    "prepare",
    "provision",
    "read_log",
    "read_model",
    "receive",
    "report",
    "run",
    "score",
    "serve",
    "start",
    "status",
    "stop",
    "try_features",
    "try_out",
    "upgrade_model",
    "verify_log",
    "view",
    "withdraw",
]  # fmt: skip
