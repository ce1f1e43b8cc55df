"""One self-contained HTML page: no request to any other place, whatever it is opened with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from gliofed.io.files import write_text
from gliofed.markers import MARKERS
from gliofed.report import figures
from gliofed.report.content import Content
from gliofed.score.results import ScoreRow

HEADLINE = (
    ("mask", "dice", "Dice of the outline"),
    *((m.id, "auc", f"AUC, {m.title}") for m in MARKERS),
    ("markers", "auc", "AUC, mean of the markers"),
)
COLUMNS = ("federated", "pooled", "alone:median")


@dataclass(frozen=True)
class FigureOnPage:
    """A figure with its heading and what it shows for those who cannot see it."""

    title: str
    alt: str
    kind: str
    data: str


def write_page(content: Content, path: Path) -> None:
    """Write the page of one run to `path`, whole or not at all."""
    environment = Environment(
        loader=PackageLoader("gliofed.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        content=content,
        headline=_headline(content),
        columns=COLUMNS,
        figures=_figures(content),
        mosaics=[(m, figures.mosaic(m)) for m in content.mosaics],
        cell=cell,
        difference=difference,
    )
    write_text(path, html)


def cell(row: ScoreRow) -> str:
    """A figure in words: value, interval and n, or n/a."""
    if row.value is None:
        return f"n/a (n = {row.n})"
    if row.low is None or row.high is None:
        return f"{row.value:.3f} (no interval), n = {row.n}"
    return f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f}), n = {row.n}"


def difference(row: ScoreRow) -> str:
    """The difference to the federated model in words, or nothing."""
    if row.difference is None:
        return ""
    if row.difference_low is None or row.difference_high is None:
        return f"{row.difference:+.3f}"
    return f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"


def _headline(content: Content) -> list[tuple[str, list[ScoreRow | None]]]:
    found = {(r.model, r.task, r.metric): r for r in _external(content)}
    return [
        (title, [found.get((model, task, metric)) for model in COLUMNS])
        for task, metric, title in HEADLINE
    ]


def _external(content: Content) -> list[ScoreRow]:
    return [r for r in content.rows if (r.role, r.site) == ("external", "all")]


def _figures(content: Content) -> list[FigureOnPage]:
    svg = "image/svg+xml"
    out = []
    if external := _external(content):
        out.append(FigureOnPage(
            "Every model on the external cases",
            "Dice and AUC of each model with 95 % intervals; the same figures stand in the "
            "table of all scores.", svg, figures.forest(external)))  # fmt: skip
    if any(c.points for c in content.curves):
        out.append(FigureOnPage(
            "Training, round by round",
            "Soft Dice and each task's training loss by round, one line a model.",
            svg, figures.training(content.curves)))  # fmt: skip
    if any(r.role == "external" for r in content.results):
        out.append(FigureOnPage(
            "ROC curves, external cases",
            "Sensitivity against 1 - specificity of each marker; areas stand in the table.",
            svg, figures.roc(content.results)))  # fmt: skip
        out.append(FigureOnPage(
            "Calibration, external cases",
            "Observed fraction against predicted probability in five bins of equal counts.",
            svg, figures.calibration(content.results)))  # fmt: skip
    return out
