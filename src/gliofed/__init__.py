"""gliofed: hospitals train one 3D glioma network together; no image leaves the building.

The public functions, each of which a command of `gliofed` calls. Modules are imported when a name
is first used: `import gliofed` loads neither torch nor any other heavy library.

>>> import gliofed
>>> gliofed.run("study.toml", "runs/study")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from gliofed.version import __version__

if TYPE_CHECKING:
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
    from gliofed.dicom.dicomweb import DicomWebServer
    from gliofed.dicom.storescp import ListenAddress
    from gliofed.experiments.finished_run import FinishedRun
    from gliofed.experiments.radiomics import FeatureExtraction, extract_features, try_features
    from gliofed.experiments.scores import score
    from gliofed.experiments.studies import cohort, demo, overlap, phantom, run
    from gliofed.federated.governance.approval import Approval
    from gliofed.federated.governance.audit_verification import LogVerdict
    from gliofed.federated.governance.hash_chain import LogLine
    from gliofed.inference.corrections import CorrectedLabel, Correction
    from gliofed.inference.mask_export import ExportedMask, SeriesLocation
    from gliofed.inference.predict import predict, report
    from gliofed.ingest.intake import IngestRequest, IngestResult
    from gliofed.preprocessing.dataset import DatasetPreparation
    from gliofed.preprocessing.workers import CasePreparation
    from gliofed.validation.check import CheckResult
    from gliofed.viewer.view import view

_MODULES: Final = {
    # Data
    "intake": "gliofed.api.scans",
    "receive": "gliofed.api.scans",
    "check": "gliofed.api.scans",
    "inspect": "gliofed.api.scans",
    "prepare": "gliofed.api.scans",
    "phantom": "gliofed.experiments.studies",
    "DicomWebServer": "gliofed.dicom.dicomweb",
    "ListenAddress": "gliofed.dicom.storescp",
    "IngestRequest": "gliofed.ingest.intake",
    "IngestResult": "gliofed.ingest.intake",
    "CheckResult": "gliofed.validation.check",
    "DatasetReading": "gliofed.data.audit",
    "DatasetPreparation": "gliofed.preprocessing.dataset",
    "CasePreparation": "gliofed.preprocessing.workers",
    # Studies
    "run": "gliofed.experiments.studies",
    "demo": "gliofed.experiments.studies",
    "overlap": "gliofed.experiments.studies",
    "cohort": "gliofed.experiments.studies",
    "score": "gliofed.experiments.scores",
    "extract_features": "gliofed.experiments.radiomics",
    "try_features": "gliofed.experiments.radiomics",
    "FeatureExtraction": "gliofed.experiments.radiomics",
    "FinishedRun": "gliofed.experiments.finished_run",
    # Models and cases
    "predict": "gliofed.inference.predict",
    "report": "gliofed.inference.predict",
    "view": "gliofed.viewer.view",
    "export": "gliofed.api.scans",
    "image": "gliofed.api.scans",
    "correct": "gliofed.api.scans",
    "Correction": "gliofed.inference.corrections",
    "CorrectedLabel": "gliofed.inference.corrections",
    "ExportedMask": "gliofed.inference.mask_export",
    "SeriesLocation": "gliofed.inference.mask_export",
    "read_model": "gliofed.deployment.model_upgrade",
    "upgrade_model": "gliofed.deployment.model_upgrade",
    "export_model": "gliofed.deployment.model_upgrade",
    # Federation
    "provision": "gliofed.api.consortium",
    "look": "gliofed.api.consortium",
    "join": "gliofed.api.consortium",
    "serve": "gliofed.api.consortium",
    "start": "gliofed.api.consortium",
    "status": "gliofed.api.consortium",
    "stop": "gliofed.api.consortium",
    "withdraw": "gliofed.api.consortium",
    "try_out": "gliofed.api.consortium",
    "approve": "gliofed.deployment.approval",
    "consent": "gliofed.deployment.approval",
    "network_size": "gliofed.deployment.approval",
    "new_key": "gliofed.deployment.approval",
    "read_log": "gliofed.deployment.approval",
    "verify_log": "gliofed.deployment.approval",
    "Approval": "gliofed.federated.governance.approval",
    "LogVerdict": "gliofed.federated.governance.audit_verification",
    "LogLine": "gliofed.federated.governance.hash_chain",
}
"""Each public name and the module that defines it."""

__all__ = [
    "Approval",
    "CasePreparation",
    "CheckResult",
    "CorrectedLabel",
    "Correction",
    "DatasetPreparation",
    "DatasetReading",
    "DicomWebServer",
    "ExportedMask",
    "FeatureExtraction",
    "FinishedRun",
    "IngestRequest",
    "IngestResult",
    "ListenAddress",
    "LogLine",
    "LogVerdict",
    "SeriesLocation",
    "__version__",
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
]


def __getattr__(name: str) -> object:
    """Import the module of a public name at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'gliofed' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
