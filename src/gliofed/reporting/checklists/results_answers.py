"""What a run says of its results: the figures as its rows have them, and what they leave open."""

from __future__ import annotations

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.results import Role, ScoreRow
from gliofed.reporting.checklists.checklist import ItemAnswer
from gliofed.reporting.checklists.formatting import MAIN, absences, figures, has_external, outside
from gliofed.reporting.checklists.model_answers import CALIBRATED, USE, calibration
from gliofed.reporting.checklists.run_facts import RunFacts, main_model, pooled_rows, scored_rows
from gliofed.reporting.html.formatting import (
    count,
    interval,
    metric_digits,
    metric_title,
    model_title,
    task_title,
)

ALL = "page: All figures; scores.csv"
STRATA = f"{ALL}; evidence/strata.csv"
NO_EXTERNAL = "No external test: this run has no figure on cases of hospitals that did not train."
UNSEEN = (
    "Figures are not adjusted for age, grade, scanner or each other, which go along with the "
    "markers; what these reach alone, and what the model adds, stands beside them. Intervals do "
    "not cover the choice of hospitals, and several figures are shown without correction for their "
    "number."
)


def performance(facts: RunFacts) -> ItemAnswer:
    """Every figure of the main model with its interval."""
    parts = [f"{name}: {figures(pooled_rows(facts.rows, role))}." for name, role in _roles(facts)]
    if not parts:
        return ItemAnswer("open", "This run has no figure.")
    model = f"{model_title(main_model(facts.rows)).capitalize()} model. "
    strata = _strata(facts)
    if strata:
        return ItemAnswer(
            "answered", f"{model}{' '.join(parts)} Also by stratum: {strata}.", STRATA
        )
    text = f"{model}{' '.join(parts)} No figure by age, sex or any other subgroup was made."
    return ItemAnswer("partly", text, ALL)


def precision(facts: RunFacts) -> ItemAnswer:
    """What tells cases apart, with intervals."""
    kinds = [
        (name, [r for r in pooled_rows(facts.rows, role) if r.task != "mask"])
        for name, role in _roles(facts)
    ]
    parts = [f"{name}: {figures(rows)}." for name, rows in kinds if rows]
    if not parts:
        return ItemAnswer("open", "This run has no figure of a marker.")
    text = f"{' '.join(parts)} No threshold for a decision was set."
    return ItemAnswer("answered", text, f"{ALL}; page: Markers")


def external(facts: RunFacts) -> ItemAnswer:
    """The external test, if there is one."""
    if not has_external(facts):
        return ItemAnswer("open", NO_EXTERNAL)
    text = f"External test on {outside(facts)}: {figures(pooled_rows(facts.rows, 'external'))}."
    if facts.study.data.leave_one_out:
        more = " No hospital stood outside the study: this is internal-external testing."
        return ItemAnswer("partly", text + more, ALL)
    return ItemAnswer("answered", text, ALL)


def internal(facts: RunFacts) -> ItemAnswer:
    """The test on held-out patients of training hospitals."""
    if not scored_rows(facts.rows, "holdout"):
        return ItemAnswer(
            "open", "No internal test: no held-out patient of a training hospital has one."
        )
    text = "Patients held out at the hospitals that train: "
    return ItemAnswer("answered", f"{text}{figures(pooled_rows(facts.rows, 'holdout'))}.", ALL)


def heterogeneity(facts: RunFacts) -> ItemAnswer:
    """How far hospitals differ, for each figure that two or more of them have."""
    parts = [text for _, role in _roles(facts) for text in _by_hospital(facts, role)]
    if not parts:
        return ItemAnswer("open", "Not examined: no figure exists at two hospitals of one kind.")
    text = f"Lowest to highest hospital: {'; '.join(parts)}. No variance between hospitals is "
    return ItemAnswer("partly", f"{text}estimated.", "page: All figures (filter by hospital)")


def no_update(facts: RunFacts) -> ItemAnswer:
    """No model was; probabilities may be calibrated."""
    if facts.calibrated is None:
        return ItemAnswer("answered", "None: no model was changed after its test.")
    text = f"No model was changed after its test. {calibration(facts)}"
    return ItemAnswer("answered", text, CALIBRATED)


def fairness(facts: RunFacts) -> ItemAnswer:
    """Nothing in training; figures by stratum where there are some."""
    text = "None in training: no loss, sampling or threshold looks at sex, age or hospital, other "
    text += "than by the weight of each hospital in the merge. "
    strata = _strata(facts)
    if strata:
        return ItemAnswer("answered", f"{text}Figures by stratum: {strata}.", STRATA)
    return ItemAnswer("partly", f"{text}No figure by sex or age was made. Why so: for the authors.")


def robustness(facts: RunFacts) -> ItemAnswer:
    """Seeds and strata; nothing else."""
    seeds, strata = facts.study.seeds, _strata(facts)
    done = []
    if len(seeds) > 1:
        done.append(f"{len(seeds)} repeats with other seeds, figures being their means")
    if strata:
        done.append(f"figures by stratum ({strata})")
    if not done:
        return ItemAnswer("open", "None: one seed, and no figure by stratum.")
    text = f"{' and '.join(done).capitalize()}. No setting was varied."
    return ItemAnswer("partly", text, "page: All figures")


def failures(facts: RunFacts) -> ItemAnswer:
    """Every answer is on disk; why it failed is for people to say."""
    if not has_external(facts):
        return ItemAnswer("open", f"{NO_EXTERNAL} For the authors to say.")
    text = (
        "Every case's truth and answer are in predictions.csv, and the page shows the federated "
        "model's best, median and worst external outline, where there are any. Why answers were "
        "wrong: for the authors to say."
    )
    return ItemAnswer("partly", text, "page: Outlines; predictions.csv")


def limitations(facts: RunFacts) -> ItemAnswer:
    """Those that the run can see."""
    known = " ".join((*limits(facts), UNSEEN))
    text = f"{known} What follows for bias and use elsewhere: for the authors."
    return ItemAnswer(
        "partly", text, "page: What to know before you trust this; model-card.md: Limits"
    )


def implications(facts: RunFacts) -> ItemAnswer:
    """Research only."""
    return ItemAnswer("partly", f"{USE} What it means for practice: for the authors to say.")


def limits(facts: RunFacts) -> tuple[str, ...]:
    """Sentences on what is known to limit the figures, from the run's own counts."""
    everyone = facts.everyone
    rows = [r for _, role in _roles(facts) for r in scored_rows(facts.rows, role)]
    out = []
    if not has_external(facts):
        out.append(NO_EXTERNAL)
    if rows:
        low = min(rows, key=lambda r: r.n)
        where = f"{task_title(low.task)}, {metric_title(low.metric)}, {low.role} test"
        out.append(f"The figure of fewest cases rests on {count(low.n, 'case')} ({where}).")
    if any(everyone.missing.values()):
        out.append(f"Missing sequences: {absences(everyone)}.")
    if everyone.masks < everyone.cases:
        left = everyone.cases - everyone.masks
        out.append(f"{left} of {everyone.cases} cases have no expert outline.")
    if facts.aside:
        out.append(f"{count(len(facts.aside), 'case')} set aside: in no figure.")
    return tuple(out)


def _roles(facts: RunFacts) -> tuple[tuple[str, Role], ...]:
    """The kinds of test of which a figure exists."""
    kinds: tuple[tuple[str, Role], ...] = (
        ("External test", "external"),
        ("Held-out patients of training hospitals", "holdout"),
    )
    return tuple((name, role) for name, role in kinds if scored_rows(facts.rows, role))


def _strata(facts: RunFacts) -> str:
    return ", ".join(facts.strata)


def _by_hospital(facts: RunFacts, role: Role) -> tuple[str, ...]:
    model = main_model(facts.rows)
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for r in facts.rows:
        own = r.site != ALL_SITES and not r.stratum and r.value is not None
        if own and r.metric in MAIN and (r.model, r.role) == (model, role):
            groups.setdefault((r.task, r.metric), []).append(r)
    out = []
    for (task, metric), rows in groups.items():
        if len(rows) > 1:
            values = [r.value for r in rows if r.value is not None]
            text = interval(min(values), max(values), metric_digits(metric))
            name = f"{task_title(task)}, {metric_title(metric)}, {role}"
            out.append(f"{name}: {text} over {len(rows)} hospitals")
    return tuple(out)
