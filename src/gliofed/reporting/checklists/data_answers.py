"""What a run says of its data: where they are from, who is in them, what is missing, who tests."""

from __future__ import annotations

from gliofed.reporting.checklists.checklist import ItemAnswer
from gliofed.reporting.checklists.formatting import (
    absences,
    divided,
    folds,
    has_external,
    listed,
    outcomes,
    people,
)
from gliofed.reporting.checklists.run_facts import CaseGroup, RunFacts
from gliofed.reporting.html.formatting import count, number
from gliofed.types import SEQUENCES

COHORT = "page: Cohort"


def sources(facts: RunFacts) -> ItemAnswer:
    """The hospitals, and the public sets among them."""
    parts = []
    for hospital in facts.hospitals:
        source = f"{hospital.source} ({hospital.licence}; {hospital.citation})"
        own = source if hospital.source else "the hospital's own data"
        parts.append(f"{hospital.name} ({hospital.part}, {hospital.group.cases} cases): {own}")
    text = f"{'; '.join(parts)}. For what the data were collected, why these were taken and whom "
    return ItemAnswer("partly", f"{text}they represent: for the authors to say.", COHORT)


def setting(facts: RunFacts) -> ItemAnswer:
    """How many hospitals, and which part each takes."""
    names = listed(f"{h.name} ({h.part})" for h in facts.hospitals)
    text = f"{count(len(facts.hospitals), 'hospital')}: {names}. Where they are and what patients "
    return ItemAnswer("partly", f"{text}they see: for the authors to say.", COHORT)


def eligibility(facts: RunFacts) -> ItemAnswer:
    """What the run itself left out; the hospitals' criteria it does not know."""
    text = (
        "By the run: readable scans, at least one sequence, a preparation that reaches [quality] "
        f"of the study ({_quality(facts)}), and one hospital a patient. {_left_out(facts)} "
        "By which criteria, where and when the hospitals chose their patients: for the authors to "
        "say."
    )
    return ItemAnswer("partly", text, "page: Set aside; study.toml")


def dates(facts: RunFacts) -> ItemAnswer:
    """No date enters a run."""
    return ItemAnswer("open", "For the authors to say: no date of any scan enters a run.")


def treatments(facts: RunFacts) -> ItemAnswer:
    """Nothing is known of treatments."""
    text = "For the authors to say. Scans are taken to be from before surgery; of treatments the "
    return ItemAnswer("open", f"{text}run knows nothing.")


def preparation(facts: RunFacts) -> ItemAnswer:
    """Every step, from the study."""
    p, grid = facts.study.prepare, facts.study.grid
    steps = [f'the brain ("{p.brain}")']
    if p.register:
        steps.append("rigid registration of a case's sequences onto its finest one")
    if p.space == "mni152":
        steps.append("affine registration to MNI152")
    if p.bias:
        steps.append("N4 correction of slow changes of intensity")
    steps.append(f"one resampling to {' x '.join(map(str, grid.spacing_mm))} mm")
    steps.append("z-scores over the brain, cut at 10 standard deviations")
    text = (
        f"In this order: {listed(steps)}; the same for every case and hospital, whatever its sex "
        f"or age. Asked of each, by measure: {_quality(facts)}. Set aside for it: "
        f"{len(facts.aside)} of {facts.everyone.cases + len(facts.aside)} cases."
    )
    return ItemAnswer("answered", text, "study.toml; page: Set aside")


def subsets(facts: RunFacts) -> ItemAnswer:
    """Which cases of those read are used, and which part of each."""
    text = (
        f"{_left_out(facts)} All others are used. Training samples are patches of "
        f"{' x '.join(map(str, facts.study.grid.patch))} voxels; tests are on the whole brain. "
        "Whether the cases are a selection of the hospitals' own: for the authors to say."
    )
    return ItemAnswer("partly", text, "page: Set aside")


def missing(facts: RunFacts) -> ItemAnswer:
    """What is missing, how often, and what was done about it."""
    everyone = facts.everyone
    text = (
        f"Missing sequences: {absences(everyone)}. Labels and outlines: {outcomes(everyone)}. "
        "Nothing is imputed: a missing sequence enters the network as zeros with a code that says "
        "so, and a case without a label or outline is left out of that task's loss and figures, "
        f"not of the others. {_left_out(facts)}"
    )
    return ItemAnswer("answered", text, f"{COHORT}; n of every figure")


def acquisition(facts: RunFacts) -> ItemAnswer:
    """Sequences, and for how many the scanner is known."""
    group = facts.everyone
    text = f"Sequences: {listed(s.value for s in SEQUENCES)}, missing: {absences(group)}. "
    rest = "All other parameters: for the authors to say."
    if not group.scanners:
        return ItemAnswer("open", f"{text}No case tells its scanner. {rest}", COHORT)
    known = f"The scanner is known of {group.scanners} of {group.cases} cases. "
    return ItemAnswer("partly", text + known + rest, f"{COHORT}; gliofed cohort")


def partitions(facts: RunFacts) -> ItemAnswer:
    """How cases were assigned, and to what."""
    data, seeds = facts.study.data, facts.study.seeds
    held = (
        f"At training hospitals of at least {data.holdout_from} patients, {data.holdout:.0%} of "
        f"the patients are held out for a test, chosen by a hash of seed and patient "
        f"({count(len(seeds), 'seed')}: {listed(map(str, seeds))})."
        if data.holdout > 0
        else "No patient of a training hospital is held out."
    )
    return ItemAnswer(
        "answered", f"By hospital, then by patient: {divided(facts)}. {held}", "study.toml"
    )


def disjoint(facts: RunFacts) -> ItemAnswer:
    """Patients and hospitals stand on one side only, as far as was looked for."""
    dropped = f" {count(len(facts.dropped), 'case')} of a patient seen elsewhere left out."
    text = f"By patient and, for external cases, by hospital. {facts.overlap}"
    return ItemAnswer(
        "answered",
        text + (dropped if facts.dropped else ""),
        "page: What to know before you trust this",
    )


def size(facts: RunFacts) -> ItemAnswer:
    """How many there are; nobody reckoned how many are needed."""
    text = f"All cases there are: {divided(facts)}. gliofed reckons no size; whether these suffice "
    return ItemAnswer("partly", f"{text}for the question: for the authors to say.", COHORT)


def differences(facts: RunFacts) -> ItemAnswer:
    """Training cases beside those of the external test, fold by fold."""
    if not has_external(facts):
        return ItemAnswer("open", "This run has no external figure: there is nothing to compare.")
    text = f"{_side_by_side(facts)}. Care, eligibility and how labels were made at each: "
    return ItemAnswer("partly", f"{text}for the authors to say.", COHORT)


def compared(facts: RunFacts) -> ItemAnswer:
    """The same distributions, as a result."""
    if not has_external(facts):
        return ItemAnswer("open", "This run has no external figure: there is nothing to compare.")
    return ItemAnswer("answered", f"{_side_by_side(facts)}.", COHORT)


def flow(facts: RunFacts) -> ItemAnswer:
    """From the cases read to those that train and test."""
    read = facts.everyone.cases + len(facts.aside)
    text = (
        f"{count(read, 'case')} read. {_left_out(facts)} Of the {facts.everyone.cases} prepared: "
        f"{divided(facts)}. Outcomes: {outcomes(facts.everyone)}. There is no follow-up. A "
        "diagram, and who was left out before (gliofed inspect counts the rows of each set): for "
        "the authors to add."
    )
    return ItemAnswer("partly", text, f"{COHORT}; page: Set aside")


def characteristics(facts: RunFacts) -> ItemAnswer:
    """Everybody, then each hospital."""
    own = "; ".join(f"{h.name}: {h.group.cases} cases, {people(h.group)}" for h in facts.hospitals)
    group = facts.everyone
    text = (
        f"All {group.cases} cases of {group.patients} patients: {people(group)}; "
        f"{outcomes(group)}; missing sequences: {absences(group)}. By hospital: {own}. Dates and "
        "treatments: for the authors to say."
    )
    return ItemAnswer("partly", text, f"{COHORT}; gliofed cohort")


def by_partition(facts: RunFacts) -> ItemAnswer:
    """Age, sex and outcomes of those who train, are held out and test outside."""
    text = f"{_by_part(facts)}. Whatever else marks the patients: for the authors to say."
    return ItemAnswer("partly", text, COHORT)


def events(facts: RunFacts) -> ItemAnswer:
    """Cases and outcomes in each analysis."""
    text = f"{_by_part(facts)}. Nothing was tuned on any of them by gliofed."
    return ItemAnswer("answered", text, f"{COHORT}; n of every figure")


def _by_part(facts: RunFacts) -> str:
    """The first seed of every fold; other seeds hold out other patients."""
    seeds = facts.study.seeds
    text = [f"{_label(facts, d.fold)}{_parts(d.train, d.holdout, d.external)}" for d, *_ in
            folds(facts)]  # fmt: skip
    more = f" (seed {seeds[0]}; others hold out other patients)" if len(seeds) > 1 else ""
    return " ".join(text) + more


def _parts(train: CaseGroup, holdout: CaseGroup, external: CaseGroup) -> str:
    parts = (("Training", train), ("Held out", holdout), ("External", external))
    return ". ".join(
        f"{name}: {g.cases} cases ({people(g)}; {outcomes(g)})" if g.cases else f"{name}: no case"
        for name, g in parts
    )


def _side_by_side(facts: RunFacts) -> str:
    return " ".join(
        f"{_label(facts, d.fold)}Training: {_who(d.train)}. External: {_who(d.external)}"
        for d, *_ in folds(facts)
    )


def _who(group: CaseGroup) -> str:
    return (
        f"{group.cases} cases; {people(group)}; {outcomes(group)}; missing sequences: "
        f"{absences(group)}"
    )


def _label(facts: RunFacts, fold: str) -> str:
    return f"Fold {fold}: " if len(folds(facts)) > 1 else ""


def _left_out(facts: RunFacts) -> str:
    aside, dropped = len(facts.aside), len(facts.dropped)
    return (
        f"Set aside for the preparation: {aside}; left out because the same patient stands at "
        f"another hospital: {dropped}."
    )


def _quality(facts: RunFacts) -> str:
    asked = facts.study.quality
    low, high = asked.brain_litres
    parts = [f"a brain of {number(low, 1)} to {number(high, 1)} L"]
    if facts.study.prepare.space == "mni152":
        parts.append(f"overlap with MNI152 of Dice {asked.template_dice:g} at least")
    if asked.alignment > 0:
        parts.append(f"an alignment of sequences of {asked.alignment:g} at least")
    return listed(parts)
