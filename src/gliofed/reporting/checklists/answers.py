"""How far a run answers each checklist item, and where the page or a file shows it.

The text of an answer is a macro of `data.md.j2`, `model.md.j2` or `results.md.j2`, with the same
name; the numbers of the items that use it stand above the macro.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.markers import MARKERS
from gliofed.reporting.checklists import run_facts, selection
from gliofed.reporting.checklists.run_facts import TEST_POLICY, RunFacts
from gliofed.reporting.checklists.selection import has_external, tests, tests_of_markers
from gliofed.reporting.html import formatting
from gliofed.runtime.templates import text_macros
from gliofed.types import SEQUENCES

State = Literal["answered", "partly", "open"]
STATES: Final[tuple[State, ...]] = ("answered", "partly", "open")
DATA: Final = "reporting/checklists/data.md.j2"
MODEL: Final = "reporting/checklists/model.md.j2"
RESULTS: Final = "reporting/checklists/results.md.j2"
TEMPLATES: Final = (DATA, MODEL, RESULTS)
GROUPS: Final = "reporting/checklists/groups.md.j2"
"""Text about groups of cases, which the others and the model card share."""
FOR_AUTHORS: Final = "for_authors"
"""The answer to an item without information in the run."""


@dataclass(frozen=True)
class ItemStatus:
    """where: the parts of the page and the files that show the answer; empty for none."""

    state: State
    where: str = ""


Rule = Callable[[RunFacts], ItemStatus]


def item_status(answer: str, facts: RunFacts) -> ItemStatus:
    """The status of an item. Raises KeyError for a name that is not in `RULES`."""
    rule = RULES[answer]
    return rule if isinstance(rule, ItemStatus) else rule(facts)


def answer_texts(facts: RunFacts) -> Callable[[str], str]:
    """A function from the name of an answer to its text, on one line."""
    values = template_values(facts)
    macros = {name: m for t in TEMPLATES for name, m in text_macros(t, **values).items()}
    return lambda answer: " ".join(macros[answer]().split())


def limits(facts: RunFacts) -> list[str]:
    """Sentences on what limits the figures, from the run's own counts; for the model card."""
    macros = text_macros(RESULTS, **template_values(facts))
    return [line for line in macros["limits"]().splitlines() if line.strip()]


def template_values(facts: RunFacts) -> dict[str, object]:
    """Names for the templates of answers: the facts, and functions that select and format."""
    functions = {
        name: getattr(module, name) for module, names in _FUNCTIONS.items() for name in names
    }
    return {
        "facts": facts,
        "study": facts.study,
        "markers": MARKERS,
        "sequences": [s.value for s in SEQUENCES],
        "tests": tests(facts),
        "test_policy": TEST_POLICY,
        **functions,
    }


_FUNCTIONS: Final[Mapping[object, tuple[str, ...]]] = {
    formatting: ("count", "metric_title", "model_title", "number", "task_title"),
    run_facts: ("main_model", "pooled_rows", "scored_rows"),
    selection: (
        "brain_may_be_given",
        "fewest_cases",
        "figures",
        "folds",
        "has_differences",
        "has_external",
        "has_held_out",
        "has_intervals",
        "interval_methods",
        "listed",
        "metric_names",
        "missing_sequences",
        "model_kinds",
        "number_range",
        "ranges_over_hospitals",
        "regression_inputs",
        "tests_of_markers",
        "trained_markers",
        "weights_with_digests",
    ),
}


def _answered(where: str = "") -> ItemStatus:
    return ItemStatus("answered", where)


def _partly(where: str = "") -> ItemStatus:
    return ItemStatus("partly", where)


OPEN: Final = ItemStatus("open")
COHORT: Final = "page: Cohort"
EXCLUDED: Final = "page: Excluded cases"
COUNTED: Final = f"{COHORT}; n of every figure"
STUDY: Final = "study.toml"
ALL: Final = "page: All figures; scores.csv"
STRATA: Final = f"{ALL}; evidence/strata.csv"
BY_HOSPITAL: Final = "page: All figures (filter by hospital)"
CALIBRATED: Final = (
    "evidence/calibrations.csv; page: Calibration, prediction sets and selective prediction"
)
PREPARING: Final = "docs: how-to/prepare-your-scans"


def _if(condition: Callable[[RunFacts], object], yes: ItemStatus, no: ItemStatus = OPEN) -> Rule:
    return lambda facts: yes if condition(facts) else no


def _calibrated(facts: RunFacts) -> ItemStatus:
    return _answered(CALIBRATED if facts.evaluated_calibration else "")


def _performance(facts: RunFacts) -> ItemStatus:
    if not tests(facts):
        return OPEN
    return _answered(STRATA) if facts.strata else _partly(ALL)


def _external(facts: RunFacts) -> ItemStatus:
    if not has_external(facts):
        return OPEN
    return _partly(ALL) if facts.study.data.leave_one_out else _answered(ALL)


RULES: Final[Mapping[str, ItemStatus | Rule]] = {
    FOR_AUTHORS: OPEN,
    # data.md.j2
    "sources": _partly(COHORT),
    "setting": _partly(COHORT),
    "eligibility": _partly(f"{EXCLUDED}; {STUDY}"),
    "dates": OPEN,
    "treatments": OPEN,
    "preparation": _answered(f"{STUDY}; {EXCLUDED}"),
    "subsets": _partly(EXCLUDED),
    "deidentification": OPEN,
    "missing": _answered(COUNTED),
    "acquisition": _if(
        lambda f: f.all_cases.scanners,
        _partly(f"{COHORT}; gliofed cohort"),
        ItemStatus("open", COHORT),
    ),
    "partitions": _answered(STUDY),
    "disjoint": _answered("page: What to know before you use these results"),
    "size": _partly(COHORT),
    "differences": _if(has_external, _partly(COHORT)),
    "compared": _if(has_external, _answered(COHORT)),
    "flow": _partly(f"{COHORT}; {EXCLUDED}"),
    "characteristics": _partly(f"{COHORT}; gliofed cohort"),
    "by_partition": _partly(COHORT),
    "events": _answered(COUNTED),
    # model.md.j2
    "title": _partly(),
    "purpose": _partly("model-card.md: Intended use"),
    "objectives": _partly(STUDY),
    "design": OPEN,
    "definitions": _partly("page: Markers"),
    "predictors": _answered("model-card.md: Input and output"),
    "measured": _partly(STUDY),
    "assessors": _if(lambda f: selection.brain_may_be_given(f.study), _partly(STUDY), _answered()),
    "inputs": _answered(STUDY),
    "architecture": _answered("docs: reference/networks; model-card.md"),
    "training": _answered(f"{STUDY}; page: Training, round by round"),
    "building": _partly(STUDY),
    "selection": _answered(),
    "initialisation": _if(lambda f: f.study.init, _partly(STUDY), _answered(STUDY)),
    "ensembling": _answered(),
    "clusters": _answered(BY_HOSPITAL),
    "measures": _if(lambda f: f.rows, _partly("docs: how-to/read-the-results")),
    "uncertainty": _if(selection.has_intervals, _answered("scores.csv; evidence/verdicts.csv")),
    "updating": _calibrated,
    "no_update": _calibrated,
    "calculation": _answered("predictions.csv; model-card.md: Weights"),
    "imbalance": _answered(COHORT),
    "output": _answered("predictions.csv"),
    "software": _answered("page: Provenance"),
    "explanation": _answered(),
    "specification": _partly("model-card.md: Weights"),
    "data_sharing": _if(lambda f: any(h.source for h in f.hospitals), _partly()),
    "code_sharing": _partly(STUDY),
    "availability": _partly("model-card.md"),
    "protocol": ItemStatus("open", STUDY),
    "unavailable": _answered(PREPARING),
    "handling": _partly(PREPARING),
    "implications": _partly(),
    # results.md.j2
    "performance": _performance,
    "precision": _if(tests_of_markers, _answered(f"{ALL}; page: Markers")),
    "external": _external,
    "internal": _if(lambda f: run_facts.scored_rows(f.rows, "holdout"), _answered(ALL)),
    "heterogeneity": _if(selection.ranges_over_hospitals, _partly(BY_HOSPITAL)),
    "fairness": _if(lambda f: f.strata, _answered(STRATA), _partly()),
    "robustness": _if(lambda f: f.strata or len(f.study.seeds) > 1, _partly("page: All figures")),
    "failures": _if(has_external, _partly("page: Segmentations of single cases; predictions.csv")),
    "limitations": _partly(
        "page: What to know before you use these results; model-card.md: Limits"
    ),
}
"""By the name of an answer: its status, or a function that gives it."""
