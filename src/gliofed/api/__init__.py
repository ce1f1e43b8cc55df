"""The public verbs. Each is what the command of the same name does."""

from gliofed.api.consortium import provision
from gliofed.api.scans import check, export, image, inspect, intake, prepare, receive
from gliofed.api.studies import cohort, demo, overlap, phantom, run
from gliofed.check.run import Result
from gliofed.datasets.audit import Reading
from gliofed.experiment.overlap import Overlap
from gliofed.experiment.run import Outcome
from gliofed.fed.cohort import CohortTable
from gliofed.infer.export import Exported, Source
from gliofed.prepare.whole import Preparation
from gliofed.prepare.workers import CaseAccount

__all__ = [
    "CaseAccount", "CohortTable", "Exported", "Outcome", "Overlap", "Preparation", "Reading",
    "Result", "Source", "check", "cohort", "demo", "export", "image", "inspect", "intake",
    "overlap", "phantom", "prepare", "provision", "receive", "run",
]  # fmt: skip
