"""Names of metrics, tasks and models, and formats of numbers, for all pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.calibration.evaluation import CALIBRATED_SUFFIX
from gliofed.evaluation.by_case.score_table import ALL_SITES, MEDIAN_MODEL
from gliofed.evaluation.by_site_sums.score_table import SUPPRESSED
from gliofed.evaluation.results import ScoreRow
from gliofed.markers import BY_ID

NOT_AVAILABLE: Final = "n/a"
MINUS: Final = "\N{MINUS SIGN}"
_ALONE: Final = "alone:"
_PERSONAL: Final = "personal:"
_MOST_STRETCHES: Final = 6


@dataclass(frozen=True)
class MetricTitle:
    """How one metric is named and rounded; `digits` are decimals."""

    title: str
    digits: int = 3
    lower_is_better: bool = False


METRICS: Final[Mapping[str, MetricTitle]] = {
    "dice": MetricTitle("Dice, mean"),
    "dice_median": MetricTitle("Dice, median"),
    "dice_p10": MetricTitle("Dice, 10th percentile"),
    "hd95_mm": MetricTitle("HD95 in mm, mean", 1, lower_is_better=True),
    "hd95_mm_median": MetricTitle("HD95 in mm, median", 1, lower_is_better=True),
    "lesion_sensitivity": MetricTitle("Lesion sensitivity"),
    "false_lesions": MetricTitle("False lesions per case", 2, lower_is_better=True),
    "volume_error_ml": MetricTitle("Volume error in ml, mean", 1),
    "volume_error_abs_ml": MetricTitle(
        "Absolute volume error in ml, mean", 1, lower_is_better=True
    ),
    "volume_error_percent": MetricTitle("Volume error in %, mean", 1),
    "volume_error_abs_percent": MetricTitle(
        "Absolute volume error in %, mean", 1, lower_is_better=True
    ),
    "auc": MetricTitle("AUC"),
    "auc_within_site": MetricTitle("AUC within hospitals"),
    "auc_mean": MetricTitle("AUC, mean over markers"),
    "auc_delong": MetricTitle("AUC, DeLong's interval"),
    "auc_pairs": MetricTitle("AUC, mean over pairs of classes"),
    "auc_4_against_2_3": MetricTitle("AUC, 4 against 2 and 3"),
    "auc_3_against_2": MetricTitle("AUC, 3 against 2"),
    "balanced_accuracy": MetricTitle("Balanced accuracy"),
    "sensitivity": MetricTitle("Sensitivity at 0.5"),
    "specificity": MetricTitle("Specificity at 0.5"),
    "sensitivity_at_specificity_90": MetricTitle("Sensitivity at specificity 0.90"),
    "specificity_at_sensitivity_90": MetricTitle("Specificity at sensitivity 0.90"),
    "brier": MetricTitle("Brier score", lower_is_better=True),
    "calibration_error": MetricTitle("Expected calibration error", lower_is_better=True),
    "calibration_slope": MetricTitle("Calibration slope (1 is best)", 2),
    "calibration_intercept": MetricTitle("Calibration intercept (0 is best)", 2),
    "calibration_in_the_large": MetricTitle("Calibration in the large (0 is best)", 2),
}
_TASKS: Final = {"mask": "Tumour segmentation", "markers": "Mean over markers"}
_SHORT: Final = {"idh": "IDH", "codel_1p19q": "1p/19q", "mgmt": "MGMT", "grade": "WHO grade"}
_MODELS: Final = {
    "federated": "federated",
    "pooled": "pooled",
    MEDIAN_MODEL: "single site, median",
    "personal": "personal (each hospital's own)",
    "parent": "parent network, pooled",
    "age_sex": "age and sex alone",
    "radiomics": "radiomics",
    "radiomics_combat": "radiomics after ComBat",
    "fusion": "network, its mask, age and sex",
}


def metric_title(metric: str) -> str:
    """The metric's name, marked if lower is better."""
    known = METRICS.get(metric, MetricTitle(metric))
    return f"{known.title} (lower is better)" if known.lower_is_better else known.title


def metric_digits(metric: str) -> int:
    """Decimals of the metric in the full table."""
    return METRICS.get(metric, MetricTitle(metric)).digits


def task_title(task: str) -> str:
    """Segmentation, a marker, or the mean over markers."""
    return BY_ID[task].title if task in BY_ID else _TASKS.get(task, task)


def short_title(task: str, measured: str = ": AUC") -> str:
    """A short name of task and metric."""
    if task == "mask":
        return "Segmentation: Dice"
    return _SHORT.get(task, task_title(task)) + measured


def site_title(site: str) -> str:
    """A hospital, or all of them."""
    return "all hospitals" if site == ALL_SITES else site


def is_single_site(model: str) -> bool:
    """Whether the model is one hospital's: trained there alone, or personal (their median is
    not)."""
    one = model.startswith((_ALONE, _PERSONAL)) and model != MEDIAN_MODEL
    return one and not is_calibrated(model)


def is_personal_model(model: str) -> bool:
    """Whether the model is the personal one of one hospital."""
    return model.startswith(_PERSONAL)


def is_calibrated(model: str) -> bool:
    """Whether the name is that of a model with calibrated probabilities."""
    return model.endswith(CALIBRATED_SUFFIX)


def model_title(model: str) -> str:
    """ "alone:utrecht" reads "utrecht alone", "personal:utrecht" reads "utrecht personal"."""
    if is_calibrated(model):
        return model_title(model.removesuffix(CALIBRATED_SUFFIX)) + CALIBRATED_SUFFIX
    if is_single_site(model):
        kind, _, site = model.partition(":")
        return f"{site} {kind}"
    return _MODELS.get(model, model)


def number(value: float | None, digits: int) -> str:
    """Rounded, with a real minus sign and no negative zero; n/a if missing."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int) -> str:
    """As `number`, with a plus sign above zero."""
    text = number(value, digits)
    plain = value is None or text == NOT_AVAILABLE or text.startswith(MINUS)
    return text if plain or float(text) == 0 else f"+{text}"


def value_text(row: ScoreRow, digits: int) -> str:
    """The value without interval, "hidden", or n/a."""
    return "hidden" if is_hidden(row) else number(row.value, digits)


def is_hidden(row: ScoreRow) -> bool:
    """Whether sites suppressed the figure for too few cases."""
    return row.value is None and SUPPRESSED in row.note


def interval(low: float | None, high: float | None, digits: int) -> str:
    """ "0.81 to 0.92", or empty if either end is missing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low, digits)} to {number(high, digits)}"


def estimate(row: ScoreRow, digits: int) -> str:
    """ "0.87 (0.81 to 0.92)", "0.87" without an interval, "hidden", or n/a."""
    text = value_text(row, digits)
    span = interval(row.low, row.high, digits)
    return f"{text} ({span})" if span and row.value is not None and text != NOT_AVAILABLE else text


def difference(row: ScoreRow, digits: int) -> str:
    """The difference to the reference with its interval; empty where there is none."""
    return signed_with_interval(row.difference, row.difference_low, row.difference_high, digits)


def signed_with_interval(
    value: float | None, low: float | None, high: float | None, digits: int
) -> str:
    """ "+0.03 (-0.01 to 0.07)"; empty where there is no value."""
    if value is None or not math.isfinite(value):
        return ""
    text, span = signed(value, digits), interval(low, high, digits)
    return f"{text} ({span})" if span else text


def with_interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    """ "0.87 (0.81 to 0.92)", or n/a."""
    text, span = number(value, digits), interval(low, high, digits)
    return f"{text} ({span})" if span and text != NOT_AVAILABLE else text


def p_value(p: float | None) -> str:
    """Three decimals, or "below" the smallest of these."""
    if p is None or not math.isfinite(p):
        return NOT_AVAILABLE
    return "< 0.001" if p < 0.001 else number(p, 3)


def missing_reason(row: ScoreRow) -> str:
    """Why a figure or its interval is missing, with the rest of its note."""
    if row.value is not None and not math.isfinite(row.value):
        return row.note or "the value is not a finite number"
    if row.value is None:
        return row.note or "no reason was recorded"
    return row.note


def without_site_prefix(site: str, why: str) -> str:
    """A reason without its site's name, for a table that has the name."""
    return why.removeprefix(f"site {site}: ")


def count(n: int, singular: str, plural: str | None = None) -> str:
    """ "1 case", "3 cases"."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def round_ranges(rounds: Sequence[int]) -> str:
    """ "1 to 4, 7" of ascending numbers; with many gaps, their count and range."""
    parts: list[list[int]] = []
    for round_number in rounds:
        if parts and round_number == parts[-1][-1] + 1:
            parts[-1].append(round_number)
        else:
            parts.append([round_number])
    if len(parts) > _MOST_STRETCHES:
        return f"{count(len(rounds), 'round')} between {rounds[0]} and {rounds[-1]}"
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
