"""Personal models: each fine-tuned by one hospital, and judged on its own held-out patients.

The models "personal:<site>" are tested on every case, as single-site models are. The figure that
matters is that of each hospital's patients by the hospital's own model. `own_personal` has these as
one model "personal", which is scored and compared like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gliofed.evaluation.results import CaseResult
from gliofed.study import PERSONAL

PREFIX: Final = f"{PERSONAL}:"


def own_personal(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The held-out patients of each hospital by its own personal model, as of the model "personal".

    Empty without personal models.
    """
    return [
        replace(r, model=PERSONAL)
        for r in results
        if r.role == "holdout" and r.model == f"{PREFIX}{r.site}"
    ]


def compared_models(results: Sequence[CaseResult]) -> list[CaseResult]:
    """What is compared with the reference: "personal" in place of the model of each hospital."""
    return [*(r for r in results if not r.model.startswith(PREFIX)), *own_personal(results)]
