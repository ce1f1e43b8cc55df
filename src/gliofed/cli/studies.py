"""Commands for studies: demo, plan, run, validate, score, overlap, cohort, radiomics, privacy."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import gliofed
from gliofed.cli import options
from gliofed.cli.privacy import privacy
from gliofed.cli.terminal import TerminalProgress, needs_extra, one_line_errors
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.processes import cores

if TYPE_CHECKING:
    from gliofed import RunOptions

GROUP: Final = "Studies"
RESUMES: Final = "the same command goes on from the last committed round"

radiomics = typer.Typer(
    no_args_is_help=True, help="Radiomic features, and regressions on them beside the network."
)


class OutputFormat(enum.StrEnum):
    """How a table is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this group."""
    for command in (demo, plan, run, validate, score, overlap, cohort):
        app.command(rich_help_panel=GROUP)(command)
    app.add_typer(radiomics, name="radiomics", rich_help_panel=GROUP)
    app.add_typer(privacy, name="privacy", rich_help_panel=GROUP)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, models and page.")] = Path("demo"),
) -> None:
    """Show the whole experiment on six synthetic hospitals: no data, no GPU, some minutes."""
    from gliofed.cli.screens.scores import show_finished_run

    with one_line_errors(after=RESUMES):
        with TerminalProgress() as progress:
            shown = gliofed.demo(out, _run_options(None, None, None), progress)
        show_finished_run(shown.run)
        typer.echo(f"Page of one predicted case: {shown.case_page}")


def plan(
    study: options.StudyFile,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run to come [default: runs/<study file's name>]."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: <out>/store].")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Models side by side [default: as gliofed run].")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Cases prepared to measure.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """State the cases, rounds, bytes, disk, memory and hours of a study; nothing is trained.

    Ends with status 1 where a problem is stated, 2 where the study cannot be run.
    """
    from gliofed.cli.screens.plan import plan_json, show_plan
    from gliofed.runtime.device import processes_at_once

    with one_line_errors(status=2):
        with TerminalProgress() as progress:
            folder = out or Path("runs") / study.stem
            choices = gliofed.PlanOptions(folder, store, processes or processes_at_once(), samples)
            found = gliofed.plan(study, choices, progress)
        if json:
            typer.echo(plan_json(found))
        else:
            show_plan(found)
    if found.problems:
        sys.exit(1)


def run(
    study: options.StudyFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run [default: runs/<study file's name>].")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: <out>/store].")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Models trained side by side [default: one a GPU; one a core without any].",
        ),
    ] = None,
    statements: Annotated[
        Path | None,
        typer.Option(help="The authors' own statements (TOML), for checklists and model card."),
    ] = None,
) -> None:
    """Run a study: federated, pooled and single-site models, tested on held-out hospitals.

    It can be interrupted: the same command goes on from the last committed round.
    """
    from gliofed.cli.screens.scores import show_finished_run

    with one_line_errors(after=RESUMES):
        with TerminalProgress() as progress:
            choices = _run_options(store, processes, statements)
            finished = gliofed.run(study, out or Path("runs") / study.stem, choices, progress)
        show_finished_run(finished)


def _run_options(store: Path | None, processes: int | None, statements: Path | None) -> RunOptions:
    from gliofed.reporting.checklists.statements import NO_STATEMENTS, read_statements
    from gliofed.runtime.device import processes_at_once

    texts = read_statements(statements) if statements else NO_STATEMENTS
    return gliofed.RunOptions(store, processes or processes_at_once(), texts)


def validate(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A model folder, or another program's masks and table."
        ),
    ],
    data: Annotated[
        list[Path], typer.Argument(help="Data sets with masks or markers, one a hospital.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and the page.")],
    format_id: options.DatasetFormat = "bids",
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: <out>/store].")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=100, help="Resamples of patients.")] = 2000,
    recalibrated: Annotated[
        Path | None,
        typer.Option(help="Also write the model into this folder, calibrated on these cases."),
    ] = None,
) -> None:
    """Evaluate a given model on your labelled cases; nothing is trained and nothing leaves.

    It can be interrupted: predicted cases are not predicted again. Ends with status 1 where a case
    was excluded or has no prediction. Research use only. Not a medical device.
    """
    from gliofed.cli.screens.scores import show_scores

    with one_line_errors(after="the same command resumes", status=2):
        with TerminalProgress() as progress:
            choices = gliofed.ValidateOptions(format_id, store, bootstrap, recalibrated)
            found = gliofed.validate(predictions, data, out, choices, progress)
        show_scores(found.rows)
        for note in found.notes:
            typer.echo(f"note: {note}")
        typer.echo(RESEARCH_USE_ONLY)
        typer.echo(f"Page: {found.page}")
        if recalibrated is not None:
            typer.echo(f"Recalibrated model: {recalibrated}")
    if not found.complete:
        sys.exit(1)


def score(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="Tables of predictions (CSV), or mapping files (TOML) of tables in another form."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for scores.csv, scores.json and the page.")],
    reference: Annotated[
        str,
        typer.Option(
            help="Model that others are compared with [default: federated, or the first]."
        ),
    ] = "",
    bootstrap: Annotated[int, typer.Option(min=100, help="Resamples of patients.")] = 2000,
    study: Annotated[
        Path | None, typer.Option(help="Take [calibration] of this study file.")
    ] = None,
) -> None:
    """Score the predictions of any model, of gliofed or not, with an interval for every score.

    Research use only. Not a medical device.
    """
    from gliofed.cli.screens.scores import show_scores

    with one_line_errors():
        show_scores(gliofed.score(predictions, out, reference, bootstrap, study))
        typer.echo(RESEARCH_USE_ONLY)
        typer.echo(f"All scores: {out / 'report.html'}, {out / 'scores.csv'}")


def overlap(
    study: options.StudyFile,
    store: options.RunStore = None,
    site: Annotated[
        str | None, typer.Option(help="Also list this hospital's patients who are elsewhere too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the patients whom hospitals share, by id and by image; nothing is trained."""
    from gliofed.cli.screens.overlap import overlap_json, show_overlap

    with one_line_errors():
        with TerminalProgress() as progress:
            result = gliofed.overlap(study, store, progress)
        if site is not None and site not in result.patients:
            known = ", ".join(result.patients)
            raise DataError(f"{site}: not a hospital of {study}; it has {known}")
        if json:
            typer.echo(overlap_json(result, site))
        else:
            show_overlap(result, site)


def cohort(
    study: options.StudyFile,
    form: Annotated[
        OutputFormat, typer.Option("--format", help="How to print it.")
    ] = OutputFormat.TABLE,
) -> None:
    """Count markers, sex, age, scanners and sequences by hospital; counts of 1 to 10 are hidden."""
    from gliofed.cli.screens.cohort import show_cohort
    from gliofed.experiments.cohort import cohort_csv, cohort_json

    with one_line_errors():
        table = gliofed.cohort(study)
        if form is OutputFormat.TABLE:
            show_cohort(table)
        else:
            to_text = cohort_csv if form is OutputFormat.CSV else cohort_json
            typer.echo(to_text(table), nl=False)


@radiomics.command("extract")
def extract(
    study: options.StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for features.csv and its companions.")],
    store: options.RunStore = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Cases side by side [default: one a core].")
    ] = None,
) -> None:
    """Measure shape, intensities and textures within the tumour mask of every case of a study.

    It can be interrupted: measured cases are not measured again.
    """
    with one_line_errors(after="the same command goes on from there"):
        with needs_extra("radiomics"), TerminalProgress() as progress:
            workers = gliofed.ExtractOptions(store, processes=processes or cores())
            result = gliofed.extract_features(study, out, workers, progress)
        for case in result.left_out:
            typer.echo(f"left out: {case.reason}", err=True)
        typer.echo(f"wrote {result.table}: {result.cases} cases, {len(result.left_out)} left out")


@radiomics.command("test")
def fit_regressions(
    tables: Annotated[list[Path], typer.Argument(help="Tables of features.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions, models, coefficients.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="For the published tables of TCGA: Table S1 of Ceccarelli et al. 2016."),
    ] = None,
) -> None:
    """Fit regressions on features from sums of each site, each hospital held out in turn.

    Research use only. Not a medical device.
    """
    with one_line_errors():
        with TerminalProgress() as progress:
            path = gliofed.leave_one_hospital_out(tables, out, labels, progress)
        typer.echo(f"wrote {path}\n{RESEARCH_USE_ONLY}")


@radiomics.command("study")
def study_published_features(
    sources: Annotated[
        Path, typer.Argument(help="The file of sources (TOML): tables of features and labels.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the page, tables and predictions.")],
    bootstrap: Annotated[int, typer.Option(min=100, help="Resamples of patients.")] = 2000,
) -> None:
    """Compare sets of published features, each hospital held out, beside age and sex alone.

    Models are trained by sums, pooled, and at each hospital alone. Research use only. Not a medical
    device.
    """
    with one_line_errors():
        with TerminalProgress() as progress:
            found = gliofed.study_hospitals(sources, out, bootstrap, progress)
        typer.echo(f"Federated and pooled probabilities differ by {found.largest_difference:.1e}.")
        typer.echo(RESEARCH_USE_ONLY)
        typer.echo(f"Page: {found.page}; as Markdown: {out / 'results.md'}")
