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
    from gliofed.data.audit import DatasetReading
    from gliofed.data.formats.registry import inspect
    from gliofed.deployment.approval import ConsentForm, approve, consent
    from gliofed.deployment.continued_run import extend
    from gliofed.deployment.federated_validation import propose_validation, validate_at_sites
    from gliofed.deployment.join import Proposal, join, propose, serve
    from gliofed.deployment.lead import readmit, start, status, stop, withdraw
    from gliofed.deployment.model_upgrade import upgrade_model
    from gliofed.deployment.provision import ProvisionedKits, provision
    from gliofed.deployment.renewal import install, renew, revoke
    from gliofed.deployment.run_status import RunStatus
    from gliofed.deployment.site_data import SiteDataPaths
    from gliofed.deployment.site_model import FetchedModel, fetch_model
    from gliofed.deployment.site_progress import SiteProgress, site_progress
    from gliofed.deployment.stored_runs import StoredRun, delete_run, stored_runs
    from gliofed.deployment.supervisor import RetryLimits
    from gliofed.deployment.try_out import try_out
    from gliofed.dicom.dicomweb import DicomWebServer
    from gliofed.dicom.storescp import ListenAddress, receive
    from gliofed.experiments.finished_run import FinishedRun
    from gliofed.experiments.hospital_features import HospitalStudy, study_hospitals
    from gliofed.experiments.planning.study_plan import PlanOptions, StudyPlan, plan
    from gliofed.experiments.privacy.audit import AuditOptions, PrivacyAudit, audit_privacy
    from gliofed.experiments.radiomics import (
        ExtractedFeatures,
        ExtractOptions,
        extract_features,
        leave_one_hospital_out,
    )
    from gliofed.experiments.run_context import RunOptions
    from gliofed.experiments.scores import score
    from gliofed.experiments.studies import Demo, cohort, demo, overlap, phantom, run
    from gliofed.experiments.validate import ValidateOptions, Validation, validate
    from gliofed.federated.governance.approval import Approval
    from gliofed.federated.governance.audit_verification import LogVerdict, read_log, verify_log
    from gliofed.federated.governance.hash_chain import LogLine
    from gliofed.federated.governance.keys import new_approver_key
    from gliofed.inference.batch import CaseStatus
    from gliofed.inference.corrections import CorrectedLabel, Correction, correct
    from gliofed.inference.mask_export import (
        ExportedMask,
        MaskExport,
        SeriesLocation,
        export_image,
        export_mask,
    )
    from gliofed.inference.predict import PredictOptions, predict, report
    from gliofed.ingest.intake import IngestRequest, IngestResult, intake
    from gliofed.models.combine import combine_models
    from gliofed.models.export.formats import ExportedModel, export_model
    from gliofed.models.folder import TrainedModel, read_model
    from gliofed.preprocessing.dataset import DatasetPreparation
    from gliofed.preprocessing.prepare_data import PrepareOptions, prepare
    from gliofed.preprocessing.workers import CasePreparation
    from gliofed.validation.check import CheckResult
    from gliofed.validation.check_data import check
    from gliofed.viewer.server import view

_MODULES: Final = {
    # Data
    "intake": "gliofed.ingest.intake",
    "IngestRequest": "gliofed.ingest.intake",
    "IngestResult": "gliofed.ingest.intake",
    "receive": "gliofed.dicom.storescp",
    "ListenAddress": "gliofed.dicom.storescp",
    "DicomWebServer": "gliofed.dicom.dicomweb",
    "check": "gliofed.validation.check_data",
    "CheckResult": "gliofed.validation.check",
    "inspect": "gliofed.data.formats.registry",
    "DatasetReading": "gliofed.data.audit",
    "prepare": "gliofed.preprocessing.prepare_data",
    "PrepareOptions": "gliofed.preprocessing.prepare_data",
    "DatasetPreparation": "gliofed.preprocessing.dataset",
    "CasePreparation": "gliofed.preprocessing.workers",
    "phantom": "gliofed.experiments.studies",
    # Studies
    "run": "gliofed.experiments.studies",
    "RunOptions": "gliofed.experiments.run_context",
    "plan": "gliofed.experiments.planning.study_plan",
    "PlanOptions": "gliofed.experiments.planning.study_plan",
    "StudyPlan": "gliofed.experiments.planning.study_plan",
    "demo": "gliofed.experiments.studies",
    "Demo": "gliofed.experiments.studies",
    "overlap": "gliofed.experiments.studies",
    "cohort": "gliofed.experiments.studies",
    "FinishedRun": "gliofed.experiments.finished_run",
    "score": "gliofed.experiments.scores",
    "validate": "gliofed.experiments.validate",
    "ValidateOptions": "gliofed.experiments.validate",
    "Validation": "gliofed.experiments.validate",
    "extract_features": "gliofed.experiments.radiomics",
    "ExtractedFeatures": "gliofed.experiments.radiomics",
    "ExtractOptions": "gliofed.experiments.radiomics",
    "leave_one_hospital_out": "gliofed.experiments.radiomics",
    "study_hospitals": "gliofed.experiments.hospital_features",
    "HospitalStudy": "gliofed.experiments.hospital_features",
    "audit_privacy": "gliofed.experiments.privacy.audit",
    "AuditOptions": "gliofed.experiments.privacy.audit",
    "PrivacyAudit": "gliofed.experiments.privacy.audit",
    # Models and cases
    "predict": "gliofed.inference.predict",
    "PredictOptions": "gliofed.inference.predict",
    "report": "gliofed.inference.predict",
    "CaseStatus": "gliofed.inference.batch",
    "view": "gliofed.viewer.server",
    "export_mask": "gliofed.inference.mask_export",
    "export_image": "gliofed.inference.mask_export",
    "MaskExport": "gliofed.inference.mask_export",
    "ExportedMask": "gliofed.inference.mask_export",
    "SeriesLocation": "gliofed.inference.mask_export",
    "correct": "gliofed.inference.corrections",
    "Correction": "gliofed.inference.corrections",
    "CorrectedLabel": "gliofed.inference.corrections",
    "read_model": "gliofed.models.folder",
    "TrainedModel": "gliofed.models.folder",
    "combine_models": "gliofed.models.combine",
    "export_model": "gliofed.models.export.formats",
    "ExportedModel": "gliofed.models.export.formats",
    "upgrade_model": "gliofed.deployment.model_upgrade",
    "fetch_model": "gliofed.deployment.site_model",
    "FetchedModel": "gliofed.deployment.site_model",
    # Federation
    "provision": "gliofed.deployment.provision",
    "install": "gliofed.deployment.renewal",
    "StoredRun": "gliofed.deployment.stored_runs",
    "delete_run": "gliofed.deployment.stored_runs",
    "stored_runs": "gliofed.deployment.stored_runs",
    "renew": "gliofed.deployment.renewal",
    "revoke": "gliofed.deployment.renewal",
    "ProvisionedKits": "gliofed.deployment.provision",
    "SiteDataPaths": "gliofed.deployment.site_data",
    "propose": "gliofed.deployment.join",
    "Proposal": "gliofed.deployment.join",
    "join": "gliofed.deployment.join",
    "serve": "gliofed.deployment.join",
    "start": "gliofed.deployment.lead",
    "extend": "gliofed.deployment.continued_run",
    "propose_validation": "gliofed.deployment.federated_validation",
    "validate_at_sites": "gliofed.deployment.federated_validation",
    "status": "gliofed.deployment.lead",
    "stop": "gliofed.deployment.lead",
    "withdraw": "gliofed.deployment.lead",
    "readmit": "gliofed.deployment.lead",
    "site_progress": "gliofed.deployment.site_progress",
    "SiteProgress": "gliofed.deployment.site_progress",
    "RetryLimits": "gliofed.deployment.supervisor",
    "RunStatus": "gliofed.deployment.run_status",
    "try_out": "gliofed.deployment.try_out",
    "ConsentForm": "gliofed.deployment.approval",
    "approve": "gliofed.deployment.approval",
    "consent": "gliofed.deployment.approval",
    "Approval": "gliofed.federated.governance.approval",
    "new_approver_key": "gliofed.federated.governance.keys",
    "verify_log": "gliofed.federated.governance.audit_verification",
    "read_log": "gliofed.federated.governance.audit_verification",
    "LogVerdict": "gliofed.federated.governance.audit_verification",
    "LogLine": "gliofed.federated.governance.hash_chain",
}
"""Each public name and the module that defines it."""

__all__ = [
    "Approval",
    "AuditOptions",
    "CasePreparation",
    "CaseStatus",
    "CheckResult",
    "ConsentForm",
    "CorrectedLabel",
    "Correction",
    "DatasetPreparation",
    "DatasetReading",
    "Demo",
    "DicomWebServer",
    "ExportedMask",
    "ExportedModel",
    "ExtractOptions",
    "ExtractedFeatures",
    "FetchedModel",
    "FinishedRun",
    "HospitalStudy",
    "IngestRequest",
    "IngestResult",
    "ListenAddress",
    "LogLine",
    "LogVerdict",
    "MaskExport",
    "PlanOptions",
    "PredictOptions",
    "PrepareOptions",
    "PrivacyAudit",
    "Proposal",
    "ProvisionedKits",
    "RetryLimits",
    "RunOptions",
    "RunStatus",
    "SeriesLocation",
    "SiteDataPaths",
    "SiteProgress",
    "StoredRun",
    "StudyPlan",
    "TrainedModel",
    "ValidateOptions",
    "Validation",
    "__version__",
    "approve",
    "audit_privacy",
    "check",
    "cohort",
    "combine_models",
    "consent",
    "correct",
    "delete_run",
    "demo",
    "export_image",
    "export_mask",
    "export_model",
    "extend",
    "extract_features",
    "fetch_model",
    "inspect",
    "install",
    "intake",
    "join",
    "leave_one_hospital_out",
    "new_approver_key",
    "overlap",
    "phantom",
    "plan",
    "predict",
    "prepare",
    "propose",
    "propose_validation",
    "provision",
    "read_log",
    "read_model",
    "readmit",
    "receive",
    "renew",
    "report",
    "revoke",
    "run",
    "score",
    "serve",
    "site_progress",
    "start",
    "status",
    "stop",
    "stored_runs",
    "study_hospitals",
    "try_out",
    "upgrade_model",
    "validate",
    "validate_at_sites",
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
