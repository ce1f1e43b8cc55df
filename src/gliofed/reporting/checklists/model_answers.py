"""What a run says of its model: what goes in and comes out, how it was trained and tested."""

from __future__ import annotations

from gliofed.markers import MARKERS
from gliofed.reporting.checklists.checklist import ItemAnswer
from gliofed.reporting.checklists.formatting import (
    divided,
    has_external,
    listed,
    outside,
    tasks,
    trained_markers,
)
from gliofed.reporting.checklists.run_facts import TEST_POLICY, RunFacts, main_files
from gliofed.reporting.html.formatting import count, metric_title, model_title, number
from gliofed.types import SEQUENCES

USE = (
    "Research on preoperative MRI of glioma: to compare methods, and to be tested at further "
    "hospitals. Not for diagnosis, treatment or any other decision about a patient."
)
STUDY = "study.toml"
CALIBRATED = "evidence/calibrations.csv; page: Calibrated"
PROVENANCE = "page: Provenance"


def title(facts: RunFacts) -> ItemAnswer:
    """What the title has to name."""
    kind = f"external test ({outside(facts)})" if has_external(facts) else "no external test"
    text = (
        "The title itself: for the authors. It would name: development of a deep learning model "
        f"with {kind}; patients with glioma, MRI before surgery; {tasks(facts.study)}."
    )
    return ItemAnswer("partly", text)


def purpose(facts: RunFacts) -> ItemAnswer:
    """Research, and nothing else is known."""
    text = f"{USE} A place in the care of patients, and for whom: for the authors to say."
    return ItemAnswer("partly", text, "model-card.md: Intended use")


def objectives(facts: RunFacts) -> ItemAnswer:
    """What the study compares."""
    models = _kinds(facts)
    test = outside(facts) if has_external(facts) else "none"
    text = (
        f"Development of a model for {tasks(facts.study)}. Models: {models}; external test: "
        f"{test}. The question and its hypotheses: for the authors to say."
    )
    return ItemAnswer("partly", text, STUDY)


def definitions(facts: RunFacts) -> ItemAnswer:
    """The outcomes as gliofed defines them; how each hospital came to them is not known."""
    parts = [f"{m.title}: {m.definition} ({m.source})" for m in MARKERS]
    text = (
        f"{' '.join(parts)} Outline: what an expert drew of the T2/FLAIR-hyperintense region. All "
        "are of the time of the scan: nothing is predicted ahead. How and when each hospital "
        "determined them, and whether alike for all patients: for the authors to say."
    )
    return ItemAnswer("partly", text, "page: Markers")


def predictors(facts: RunFacts) -> ItemAnswer:
    """The scans, chosen before anything was trained."""
    text = (
        f"The four sequences {listed(s.value for s in SEQUENCES)} as whole images, and which of "
        "them are there. None was chosen by its data, and no clinical value (age, sex) enters the "
        f"network.{_compared(facts)}"
    )
    return ItemAnswer("answered", text, "model-card.md: What it takes and what it gives")


def measured(facts: RunFacts) -> ItemAnswer:
    """When scanned is not known; the network sees no outcome."""
    text = (
        f"{predictors(facts).text} The network sees no outcome of the case it answers. When and "
        "how the scans were made, and whether whoever chose or drew on them knew the outcomes: for "
        "the authors to say."
    )
    return ItemAnswer("partly", text, STUDY)


def assessors(facts: RunFacts) -> ItemAnswer:
    """Whether a person's judgement enters as an input."""
    if facts.study.prepare.brain in ("given", "stripped", "auto"):
        text = (
            "Scans enter by automatic steps, but a hospital's own brain mask or stripped scan is "
            "taken as it is. Whether there were any, and who made them: for the authors to say."
        )
        return ItemAnswer("partly", text, STUDY)
    return ItemAnswer(
        "answered", "None: scans enter by automatic steps, without a person's judgement."
    )


def inputs(facts: RunFacts) -> ItemAnswer:
    """How images are scaled and changed on their way in."""
    train = facts.study.train
    text = (
        "Each sequence is z-scored over the brain, cut at 10 standard deviations, and 0 outside. "
        f"In training: augmentation of strength {train.augment:g} (turning, scaling, flips, noise, "
        f"intensity), and a sequence is hidden from a sample with a chance of "
        f"{train.drop_sequence:g}."
    )
    return ItemAnswer("answered", text, STUDY)


def architecture(facts: RunFacts) -> ItemAnswer:
    """Network, inputs and outputs."""
    net = facts.study.net
    stem = f", stem {' x '.join(map(str, net.stem))}" if net.stem else ""
    text = (
        f'Multi-task 3D U-Net, preset "{net.preset}"{stem}, {facts.parameters:,} parameters: one '
        "encoder and decoder, one voxel-wise outline, and a head a marker over features pooled at "
        f"every level. In: {listed(s.value for s in SEQUENCES)} and a code of which are there. "
        f"Out: {tasks(facts.study)}."
    )
    return ItemAnswer("answered", text, "docs: reference/networks; model-card.md")


def training(facts: RunFacts) -> ItemAnswer:
    """Losses, optimiser and passes; where the settings come from is not known."""
    s, t = facts.study, facts.study.train
    weights = [
        f"outline {s.loss.mask:g}",
        *(f"{m.title} {s.loss.markers[m.id]:g}" for m in MARKERS),
    ]
    minutes = number(sum(m.seconds for m in facts.models) / 60, 1)
    refused = sum(m.refused for m in facts.models)
    text = (
        "Loss: Dice and cross-entropy of the outline, class-weighted cross-entropy of the "
        f"markers, weighed {', '.join(weights)}. AdamW, learning rate {t.lr:g} after a warm-up "
        f"over {t.warmup:.0%} of the steps, then cosine; weight decay {t.weight_decay:g}, gradient "
        f"norm at most {t.clip:g}, batch {t.batch}. {t.rounds} rounds of {t.local_epochs} local "
        f'epochs; updates merged by "{s.federation.strategy}", server learning rate '
        f"{s.federation.server_lr:g}; {count(refused, 'update')} refused. "
        f"{count(len(facts.models), 'model')}, {minutes} minutes in all."
    )
    return ItemAnswer("answered", text, f"{STUDY}; page: Training, round by round")


def building(facts: RunFacts) -> ItemAnswer:
    """Type, training and internal test; how settings were found is for the authors."""
    held = any(d.holdout.cases for d in facts.divisions)
    inside = "patients held out at training hospitals" if held else "none"
    text = (
        f"{architecture(facts).text} {training(facts).text} Internal test: {inside}. "
        "gliofed tunes no setting; how those of the study were found: for the authors to say."
    )
    return ItemAnswer("partly", text, STUDY)


def selection(facts: RunFacts) -> ItemAnswer:
    """The last round, always."""
    return ItemAnswer(
        "answered", f"The model after the last round, without a choice. {TEST_POLICY}"
    )


def initialisation(facts: RunFacts) -> ItemAnswer:
    """At random, from the seed."""
    seeds = listed(map(str, facts.study.seeds))
    text = f"At random (He et al. 2015) from the seed ({seeds}); no weights of another model."
    return ItemAnswer("answered", text, STUDY)


def ensembling(facts: RunFacts) -> ItemAnswer:
    """None; what might be taken for it."""
    mirror = (
        ", averaged with that of the left-right mirrored scan" if facts.study.score.mirror else ""
    )
    seeds = len(facts.study.seeds)
    repeats = (
        f" Figures are means over {seeds} seeds, each model scored alone." if seeds > 1 else ""
    )
    text = f"None: every answer is one model's{mirror}.{repeats}"
    return ItemAnswer("answered", text)


def clusters(facts: RunFacts) -> ItemAnswer:
    """What is done about hospitals that differ."""
    text = (
        f"Kinds of model: {_kinds(facts)}. The federated one is one network for all "
        f'hospitals, merged by "{facts.study.federation.strategy}". Figures are given by hospital '
        "and for all together; no variance between hospitals is estimated."
    )
    return ItemAnswer("answered", text, "page: All figures (filter by hospital)")


def measures(facts: RunFacts) -> ItemAnswer:
    """Every metric that the run has, and what it has not."""
    names = list(dict.fromkeys(metric_title(r.metric) for r in facts.rows))
    if not names:
        return ItemAnswer("open", "This run has no figure.")
    plots = "ROC and calibration curves, a forest plot of every model, outlines of single cases"
    compared = "; models compared by paired differences" if _differ(facts) else ""
    text = (
        f"{listed(names)}{compared}. Plots, where there are cases for them: {plots}. Why these, "
        "and whether a measure of use for decisions is missed: for the authors to say."
    )
    return ItemAnswer("partly", text, "docs: how-to/read-the-results")


def uncertainty(facts: RunFacts) -> ItemAnswer:
    """How intervals and p are made."""
    if not any(r.low is not None for r in facts.rows):
        return ItemAnswer("open", "This run has no figure with an interval.")
    methods = list(dict.fromkeys(r.method for r in facts.rows if r.method))
    drawn = f"from {facts.study.score.bootstrap} bootstrap resamples of patients"
    how = listed(methods) if methods else drawn
    paired = (
        " Differences between models: on the same cases and resamples." if _differ(facts) else ""
    )
    tests = "No p-value, and no correction for the number of figures"
    if facts.evidence is not None:
        tests = (
            "Claims rest on tests named beforehand, with Holm's correction in each family; the "
            "figures themselves are not corrected for their number"
        )
    text = (
        f"95 % intervals: {how}.{paired} {tests}; intervals do not cover the choice of hospitals."
    )
    return ItemAnswer("answered", text, "scores.csv; evidence/verdicts.csv")


def updating(facts: RunFacts) -> ItemAnswer:
    """No model is changed by a run; probabilities may be calibrated, on other cases."""
    if facts.calibrated is None:
        return ItemAnswer("answered", "None: no model was changed or recalibrated after its test.")
    return ItemAnswer(
        "answered", f"No model was changed after its test. {calibration(facts)}", CALIBRATED
    )


def calibration(facts: RunFacts) -> str:
    """What was done to the probabilities, in a sentence; empty where nothing was."""
    tried = facts.calibrated
    if tried is None:
        return ""
    kinds = {"platt": "Platt", "temperature": "temperature"}
    return (
        f"Besides the network's own, probabilities after {kinds[tried.wishes.kind]} scaling are "
        "shown: fitted on the cases that training hospitals kept back, never on those tested, and "
        "with IDH, 1p/19q and grade decided together."
    )


def calculation(facts: RunFacts) -> ItemAnswer:
    """How an answer comes about."""
    mirror = " and its left-right mirror image, averaged" if facts.study.score.mirror else ""
    text = (
        f"gliofed {facts.versions.get('gliofed', '')}: the weights of the last round over the "
        f"whole prepared brain{mirror}; a sigmoid gives each voxel's probability, a softmax those "
        "of a marker's classes. Outlines are scored on the scan's own grid."
    )
    return ItemAnswer("answered", text, "predictions.csv; model-card.md: Weights")


def imbalance(facts: RunFacts) -> ItemAnswer:
    """Class weights, and whether they are undone afterwards."""
    undone = (
        calibration(facts) if facts.calibrated else "Probabilities were not recalibrated for it."
    )
    text = (
        "Cross-entropy of a marker is weighted inversely to the number of training cases of each "
        "class, summed over the hospitals that train the model, since classes differ in size "
        f"between them. {undone}"
    )
    return ItemAnswer("answered", text, "page: Cohort")


def output(facts: RunFacts) -> ItemAnswer:
    """Probabilities, and the one threshold there is."""
    trained = listed(m.title for m in trained_markers(facts.study))
    text = (
        f"Probabilities of each class ({trained}) and of each voxel. The outline is cut at 0.5 and "
        "the class is the likeliest one where balanced accuracy needs one: both fixed beforehand, "
        "neither from data. No threshold for a decision."
    )
    return ItemAnswer("answered", text, "predictions.csv")


def software(facts: RunFacts) -> ItemAnswer:
    """Versions and the machine."""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return ItemAnswer("answered", f"{versions}. Machine: {facts.machine}.", PROVENANCE)


def explanation(facts: RunFacts) -> ItemAnswer:
    """None."""
    return ItemAnswer("answered", "None: what an answer rests on is not shown.")


def specification(facts: RunFacts) -> ItemAnswer:
    """Where the model itself is."""
    files = listed(f"{m.file} (SHA-256 {m.sha256[:16]}...)" for m in main_files(facts))
    text = (
        f"{architecture(facts).text} Weights: {files}. Under which terms others may have them: "
        "for the authors to say."
    )
    return ItemAnswer("partly", text, "model-card.md: Weights")


def data_sharing(facts: RunFacts) -> ItemAnswer:
    """Licences of public sets; own data are not the run's to offer."""
    public = [f"{h.name}: {h.source}, {h.licence}" for h in facts.hospitals if h.source]
    if not public:
        return ItemAnswer("open", "For the authors to say: the data are the hospitals' own.")
    own = [h.name for h in facts.hospitals if not h.source]
    rest = f" Of {listed(own)}: for the authors to say." if own else ""
    text = f"Public sets: {'; '.join(public)}.{rest} Of what the run made: for the authors to say."
    return ItemAnswer("partly", text)


def code_sharing(facts: RunFacts) -> ItemAnswer:
    """The program is named; where it is had is not known."""
    text = (
        f"gliofed {facts.versions.get('gliofed', '')} (Apache-2.0) and study.toml, digest "
        f"{facts.study.digest}, repeat the run on the same data. Where they can be had: "
        "for the authors to say."
    )
    return ItemAnswer("partly", text, STUDY)


def availability(facts: RunFacts) -> ItemAnswer:
    """Software, model and data at once."""
    parts = (code_sharing(facts), specification(facts), data_sharing(facts))
    return ItemAnswer("partly", " ".join(p.text for p in parts), "model-card.md")


def protocol(facts: RunFacts) -> ItemAnswer:
    """Settings are no protocol."""
    text = f"For the authors to say. The settings, digest {facts.study.digest}, are no protocol."
    return ItemAnswer("open", text, STUDY)


def unavailable(facts: RunFacts) -> ItemAnswer:
    """What to do with poor or missing scans."""
    chance = facts.study.train.drop_sequence
    hidden = (
        f"some were hidden in training (chance {chance:g})" if chance > 0 else "none was hidden"
    )
    text = (
        f"Any sequence may be missing and is then left out; {hidden}. Scans that cannot be "
        "prepared, or whose preparation does not reach [quality] of the study, get "
        f"no answer: {len(facts.aside)} of "
        f"{facts.everyone.cases + len(facts.aside)} here."
    )
    return ItemAnswer("answered", text, "docs: how-to/prepare-your-scans")


def handling(facts: RunFacts) -> ItemAnswer:
    """Automatic, but to be looked at."""
    text = (
        "Preparation and answer are automatic; somebody should look at each case's figure of its "
        "preparation. What training that person needs: for the authors to say."
    )
    return ItemAnswer("partly", text, "docs: how-to/prepare-your-scans")


def design(facts: RunFacts) -> ItemAnswer:
    """A run reads what is there."""
    text = "For the authors to say. The run read scans that were there; for what they were made "
    return ItemAnswer("open", f"{text}it does not know. {divided(facts)}.")


def _kinds(facts: RunFacts) -> str:
    return listed("single site" if m == "alone" else model_title(m) for m in facts.study.models)


def _compared(facts: RunFacts) -> str:
    """What regressions for comparison read, if there are any."""
    texts = {
        "age_sex": "age and sex",
        "radiomics": "features measured within outlines",
        "radiomics_combat": "the same features after ComBat",
    }
    read = [text for model, text in texts.items() if model in facts.study.models]
    return f" For comparison, logistic regressions read {listed(read)}." if read else ""


def _differ(facts: RunFacts) -> bool:
    return any(r.difference is not None and r.difference_low is not None for r in facts.rows)
