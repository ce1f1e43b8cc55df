"""The id of every metric in a table of scores or evidence, and its definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

AUC: Final = "auc"
AUC_WITHIN_SITE: Final = "auc_within_site"
AUC_MEAN: Final = "auc_mean"
AUC_GRADE_4: Final = "auc_4_against_2_3"
LOG_ODDS_RATIO: Final = "log_odds_ratio"
Subject = Literal["mask", "marker", "markers"]


@dataclass(frozen=True)
class MetricDefinition:
    """One metric. subject: the tumour mask, one marker, or all markers together.

    quantity: computed from the cases that enter it. If several seeds predict the same cases, the
    value is the mean over seeds.
    """

    id: str
    subject: Subject
    quantity: str


METRIC_DEFINITIONS: Final[tuple[MetricDefinition, ...]] = (
    MetricDefinition(
        "dice", "mask", "mean over cases of Dice between mask and expert mask, on the scan's grid"
    ),
    MetricDefinition("dice_median", "mask", "median over cases of the same Dice"),
    MetricDefinition("dice_p10", "mask", "10th percentile over cases of the same Dice"),
    MetricDefinition(
        "hd95_mm", "mask", "mean over cases of the 95th percentile of surface distance"
    ),
    MetricDefinition("hd95_mm_median", "mask", "median over cases of the same distance"),
    MetricDefinition(
        "lesion_sensitivity", "mask", "detected lesions of all cases / lesions of all cases"
    ),
    MetricDefinition(
        "false_lesions", "mask", "mean over cases of predicted lesions that meet no true one"
    ),
    MetricDefinition("volume_error_ml", "mask", "mean over cases of predicted less true volume"),
    MetricDefinition("volume_error_abs_ml", "mask", "mean over cases of the absolute error in ml"),
    MetricDefinition(
        "volume_error_percent", "mask", "mean over cases of the error in % of the true volume"
    ),
    MetricDefinition(
        "volume_error_abs_percent", "mask", "mean over cases of the absolute error in %"
    ),
    MetricDefinition(
        AUC,
        "marker",
        "area under the ROC curve over all pairs of cases, across sites too; "
        "of three classes the mean of each against the rest",
    ),
    MetricDefinition("auc_delong", "marker", "the value of auc, with DeLong's interval"),
    MetricDefinition(
        AUC_WITHIN_SITE,
        "marker",
        "the same area over pairs of cases of the same site only, "
        "pairs of all sites added (van Elteren 1960)",
    ),
    MetricDefinition("auc_pairs", "marker", "mean over pairs of classes of the area between both"),
    MetricDefinition(AUC_GRADE_4, "marker", "area for grade 4 against grades 2 and 3"),
    MetricDefinition(
        "auc_3_against_2", "marker", "area for grade 3 against grade 2, without grade 4"
    ),
    MetricDefinition(AUC_MEAN, "markers", "mean over markers of auc"),
    MetricDefinition(
        "balanced_accuracy", "marker", "mean over classes of the recall of the likeliest class"
    ),
    MetricDefinition("sensitivity", "marker", "recall of the second class at probability 0.5"),
    MetricDefinition("specificity", "marker", "recall of the first class at probability 0.5"),
    MetricDefinition(
        "sensitivity_at_specificity_90", "marker", "largest sensitivity with specificity 0.90"
    ),
    MetricDefinition(
        "specificity_at_sensitivity_90", "marker", "largest specificity with sensitivity 0.90"
    ),
    MetricDefinition(
        "brier",
        "marker",
        "mean squared error of the probability: of two classes of the "
        "second's (0 to 1), of three the sum over classes (0 to 2)",
    ),
    MetricDefinition(
        "calibration_error", "marker", "expected calibration error, 10 bins of equal counts"
    ),
    MetricDefinition("calibration_slope", "marker", "slope of the logistic recalibration"),
    MetricDefinition("calibration_intercept", "marker", "intercept of the same fit"),
    MetricDefinition("calibration_in_the_large", "marker", "intercept with the slope fixed at 1"),
    MetricDefinition(
        LOG_ODDS_RATIO,
        "marker",
        "log of the odds ratio for one standard deviation of the "
        "model's logit, with a confounder in the same model",
    ),
)
RANKED_METRIC: Final[Mapping[str, Literal["auc_4_against_2_3"]]] = {"grade": "auc_4_against_2_3"}
"""The AUC of any score for a marker's positive class against the rest; `auc` for markers not
listed."""
