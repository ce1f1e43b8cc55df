"""The figures of a privacy audit as Markdown: a page, and a section of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gliofed.evaluation.privacy.rows import JOINT, PrivacyRow
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.html.formatting import task_title
from gliofed.runtime.templates import plain

HEADING: Final = "## Privacy audit"
MAIN: Final = ("auc", "right", "identified")
"""Metrics of the model card, one of each attack."""
ATTACKS: Final = {
    "membership_loss": "Membership by the loss (Yeom et al. 2018)",
    "membership_likelihood_ratio": "Membership by the likelihood ratio (Carlini et al. 2022)",
    "label_inference": "Labels from a gradient (Zhao et al. 2020; Wainakh et al. 2022)",
    "gradient_inversion": "Image from a gradient (Geiping et al. 2020)",
}
METRICS: Final = {
    "auc": "AUC",
    "tpr_at_fpr_0": "true-positive rate without a false positive",
    "tpr_at_fpr_0.01": "true-positive rate at 1 % false positives",
    "tpr_at_fpr_0.1": "true-positive rate at 10 % false positives",
    "right": "labels that are right",
    "identified": "patients whose image is recognised",
    "correlation": "correlation with the patient's image",
    "ssim": "structural similarity to the patient's image",
}
NO_PROOF: Final = (
    "An attack that fails proves nothing: a better one may succeed. The figures are of these "
    "attacks, this run and these patients."
)
_COLUMNS: Final = (
    "of the network",
    "seen",
    "defence",
    "task",
    "figure",
    "value (95 % interval)",
    "by chance",
    "n",
    "note",
)


def privacy_markdown(study: str, rows: Sequence[PrivacyRow]) -> str:
    """All figures, one table an attack."""
    parts = [f"# Privacy audit of {plain(study)}", RESEARCH_USE_ONLY, NO_PROOF]
    for attack, title in ATTACKS.items():
        own = [r for r in rows if r.attack == attack]
        if own:
            parts += [f"## {title}", _table(own)]
    return "\n\n".join(parts) + "\n"


def privacy_section(rows: Sequence[PrivacyRow]) -> str:
    """The section of a model card with the main figures."""
    parts = [HEADING, NO_PROOF]
    for attack, title in ATTACKS.items():
        own = [r for r in rows if (r.attack, r.task) == (attack, JOINT) and r.metric in MAIN]
        if own:
            parts += [f"{title}:", _table(own)]
    return "\n\n".join(parts) + "\n"


def with_privacy_section(card: str, rows: Sequence[PrivacyRow]) -> str:
    """The card with this section at its end, in place of an earlier one; as it is without rows."""
    if not rows:
        return card
    body = card.partition(f"\n{HEADING}\n")[0].rstrip("\n")
    return f"{body}\n\n{privacy_section(rows)}"


def _table(rows: Sequence[PrivacyRow]) -> str:
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for r in rows:
        task = "all" if r.task == JOINT else task_title(r.task)
        cells = (r.model, r.seen, r.defence, task, METRICS[r.metric])
        lines.append(_line([*cells, _value(r), _number(r.chance), str(r.n), r.note]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(row: PrivacyRow) -> str:
    if row.value is None:
        return "n/a"
    if row.low is None or row.high is None:
        return _number(row.value)
    return f"{_number(row.value)} ({_number(row.low)} to {_number(row.high)})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
