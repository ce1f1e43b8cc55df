"""Model cards: one form for a model of `gliofed run` and for one of a federation between hospitals.

Markdown with a YAML head for Hugging Face (license, library_name, tags, datasets,
metrics, model-index), and the fields of MONAI's metadata (name, version, task, intended use,
network data format, references) in its sections.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.evaluation.results import Role, ScoreRow
from gliofed.reporting.checklists.run_facts import scored_rows
from gliofed.reporting.checklists.selection import trained_markers, untrained_titles
from gliofed.reporting.html.formatting import (
    count,
    interval,
    metric_digits,
    metric_title,
    task_title,
)
from gliofed.runtime.templates import render_text
from gliofed.study import Study
from gliofed.types import SEQUENCES
from gliofed.version import __version__

UNKNOWN_LICENSE: Final = "unknown"
TAGS: Final = (
    "medical",
    "MRI",
    "glioma",
    "3d",
    "segmentation",
    "federated-learning",
    "research-use-only",
)


@dataclass(frozen=True)
class CardHeader:
    """Contents of the YAML head besides the study. datasets: ids of public sets that it was trained
    on. rows: of the test; those of the main model over all hospitals enter the results. untrained:
    ids of markers that fewer than two classes of had training cases. noise: sentences on the
    noise in its training, and what epsilon it has."""

    study: Study
    rows: Sequence[ScoreRow]
    datasets: Sequence[str] = ()
    license: str = UNKNOWN_LICENSE
    untrained: Sequence[str] = ()
    noise: Sequence[str] = ()


def fill_card(template: str, head: CardHeader, **values: object) -> str:
    """A card as Markdown; text from elsewhere is escaped by `plain`.

    template: a file that extends `reporting/model_card.md.j2`, named as `render_text` names it.
    """
    study = head.study
    return render_text(
        template,
        head=front_matter(head),
        version=__version__,
        study=study,
        spacing=" x ".join(map(str, study.grid.spacing_mm)),
        patch=" x ".join(map(str, study.grid.patch)),
        sequences=[s.value for s in SEQUENCES],
        markers=trained_markers(study, head.untrained),
        untrained=untrained_titles(study, head.untrained),
        noise=head.noise,
        count=count,
        **values,
    )


def front_matter(head: CardHeader) -> str:
    """The YAML head, without its two lines of dashes. Names no site; texts are quoted as JSON."""
    tags = (*TAGS, *(["synthetic-data"] if head.study.data.synthetic else []))
    lines = [
        f"license: {_quoted(head.license)}",
        "library_name: gliofed",
        "pipeline_tag: image-segmentation",
        *_list("tags", tags),
        *_list("datasets", head.datasets),
    ]
    role: Role = "external" if scored_rows(head.rows, "external") else "holdout"
    rows = scored_rows(head.rows, role)
    if rows:
        lines += _list("metrics", tuple(dict.fromkeys(r.metric for r in rows)))
        lines += ["model-index:", f"- name: {_quoted(head.study.name)}", "  results:"]
        for task in dict.fromkeys(r.task for r in rows):
            lines += _result(task, role, [r for r in rows if r.task == task])
    return "\n".join(lines)


def _result(task: str, role: Role, rows: Sequence[ScoreRow]) -> list[str]:
    kind = "image-segmentation" if task == "mask" else "image-classification"
    where = "hospitals that did not train" if role == "external" else "held-out patients"
    return [
        "  - task:",
        f"      type: {kind}",
        f"      name: {_quoted(task_title(task))}",
        "    dataset:",
        f"      type: {role}",
        f"      name: {_quoted(f'{role} test: {where}')}",
        "    metrics:",
        *(line for row in rows for line in _metric(row)),
    ]


def _metric(row: ScoreRow) -> list[str]:
    digits = metric_digits(row.metric)
    span = interval(row.low, row.high, digits)
    text = f"95 % interval {span}" if span else "no interval"
    name = f"{metric_title(row.metric)}; {text}; n = {row.n}"
    value = round(row.value, digits) if row.value is not None else None
    return [
        f"    - type: {_quoted(row.metric)}",
        f"      value: {json.dumps(value)}",
        f"      name: {_quoted(name)}",
    ]


def _list(name: str, values: Sequence[str]) -> list[str]:
    return [f"{name}:", *(f"- {_quoted(v)}" for v in values)] if values else []


def _quoted(text: str) -> str:
    """A JSON string, which is also a valid YAML string."""
    return json.dumps(text)
