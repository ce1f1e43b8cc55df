"""A made-up run between hospitals, as its server tells of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from gliofed.consortium.segment import run_of
from gliofed.consortium.status import RunStatus
from gliofed.markers import MARKERS
from gliofed.score.results import CaseResult
from gliofed.score.stratified import rows
from gliofed.score.sums import sums_of
from gliofed.study import Study
from gliofed.types import Labels, RoundPoint

NO_ANSWER = "site leiden: no answer: no answer within 3600 s"
