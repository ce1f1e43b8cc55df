"""TRIPOD+AI: 27 reporting items for prediction models, 52 with their parts.

Collins et al. 2024, BMJ 385:e078378. Numbers and topics are those published; the items are
paraphrased, and the paper takes precedence.
"""

from __future__ import annotations

from typing import Final

from gliofed.reporting.checklists.answers import FOR_AUTHORS
from gliofed.reporting.checklists.checklist import Checklist, ChecklistItem

_T, _A, _I, _M = "Title", "Abstract", "Introduction", "Methods"
_O, _P, _R, _D = "Open science", "Patient and public involvement", "Results", "Discussion"
_USE = "Usability in current care"
_OUTCOME, _PREDICTORS, _METHODS = "Outcome", "Predictors", "Analytical methods"


_ROWS: Final = (
    ("1", _T, "Title", "Development, test or both; patients; what is predicted.", "title"),
    ("2", _A, "Abstract", "What TRIPOD+AI for Abstracts lists.", FOR_AUTHORS),
    ("3a", _I, "Background", "Diagnosis or prognosis; why a model; which ones there are.",
     FOR_AUTHORS),
    ("3b", _I, "Background", "For whom the model is, where in their care, used by whom.",
     "purpose"),
    ("3c", _I, "Background", "Known inequalities in health between groups of people.", FOR_AUTHORS),
    ("4", _I, "Objectives", "The aims; whether a model is developed, tested or both.",
     "objectives"),
    ("5a", _M, "Data", "Sources for development and for test; why these; whom they represent.",
     "sources"),
    ("5b", _M, "Data", "From when to when data were collected and patients followed.", "dates"),
    ("6a", _M, "Participants", "Kind of care; number and places of centres.", "setting"),
    ("6b", _M, "Participants", "Who could take part.", "eligibility"),
    ("6c", _M, "Participants", "Treatments, and how the analysis took them into account.",
     "treatments"),
    ("7", _M, "Data preparation", "Processing and checks of the data; whether alike for all.",
     "preparation"),
    ("8a", _M, _OUTCOME, "Each outcome: definition, time, how determined, why; alike for all.",
     "definitions"),
    ("8b", _M, _OUTCOME, "Who judged an outcome that takes judgement; their training.",
     FOR_AUTHORS),
    ("8c", _M, _OUTCOME, "Whether those who judged it were blinded.", FOR_AUTHORS),
    ("9a", _M, _PREDICTORS, "Which predictors were considered, and any choice among them.",
     "predictors"),
    ("9b", _M, _PREDICTORS, "Each predictor: definition, how and when measured, blinding.",
     "measured"),
    ("9c", _M, _PREDICTORS, "Who judged a predictor that takes judgement; their training.",
     "assessors"),
    ("10", _M, "Sample size", "How it came about, for development and test; whether enough.",
     "size"),
    ("11", _M, "Missing data", "How missing data were handled; why any were left out.", "missing"),
    ("12a", _M, _METHODS, "Which data served for what; how they were divided.", "partitions"),
    ("12b", _M, _METHODS, "How predictors entered: form, scale, transformation.", "inputs"),
    ("12c", _M, _METHODS, "Type of model and why; every step of building; internal test.",
     "building"),
    ("12d", _M, _METHODS, "How differences between clusters (hospitals) were handled.", "clusters"),
    ("12e", _M, _METHODS, "Measures and plots of performance and why; comparing models.",
     "measures"),
    ("12f", _M, _METHODS, "Any change of the model after its test, as recalibration.", "updating"),
    ("12g", _M, _METHODS, "How predictions were calculated for the test.", "calculation"),
    ("13", _M, "Class imbalance", "What was done about it and why; recalibration after it.",
     "imbalance"),
    ("14", _M, "Fairness", "What was done for fairness, and why.", "fairness"),
    ("15", _M, "Model output", "Probability or class; how thresholds were set.", "output"),
    ("16", _M, "Training versus evaluation",
     "How the data of development and test differ in care, patients, outcome and predictors.",
     "differences"),
    ("17", _M, "Ethical approval", "Which committee approved; consent or its waiver.", FOR_AUTHORS),
    ("18a", _O, "Funding", "Who paid, and what part they had.", FOR_AUTHORS),
    ("18b", _O, "Conflicts of interest", "Of every author.", FOR_AUTHORS),
    ("18c", _O, "Protocol", "Where it is, or that there is none.", "protocol"),
    ("18d", _O, "Registration", "Register and number, or that there is none.", FOR_AUTHORS),
    ("18e", _O, "Data sharing", "Whether and how others can have the data.", "data_sharing"),
    ("18f", _O, "Code sharing", "Whether and how others can have the code.", "code_sharing"),
    ("19", _P, "Patient and public involvement", "What part they had, or that they had none.",
     FOR_AUTHORS),
    ("20a", _R, "Participants", "Who came through each stage, with and without the outcome.",
     "flow"),
    ("20b", _R, "Participants", "Characteristics overall and by source; what is missing.",
     "characteristics"),
    ("20c", _R, "Participants", "Those tested beside those trained on.", "compared"),
    ("21", _R, "Model development", "Patients and events in each analysis.", "events"),
    ("22", _R, "Model specification", "The whole model, so that others can use and test it.",
     "specification"),
    ("23a", _R, "Model performance", "Estimates with intervals, also for key subgroups.",
     "performance"),
    ("23b", _R, "Model performance", "How performance differs between clusters.", "heterogeneity"),
    ("24", _R, "Model updating", "The changed model and its performance.", "no_update"),
    ("25", _D, "Interpretation", "What the results mean, for fairness too, and beside others'.",
     FOR_AUTHORS),
    ("26", _D, "Limitations", "Limits, and what they do to bias, uncertainty and reach.",
     "limitations"),
    ("27a", _D, _USE, "What to do in use with poor or missing input.", "unavailable"),
    ("27b", _D, _USE, "What users have to do, and with what expertise.", "handling"),
    ("27c", _D, _USE, "What should be studied next.", FOR_AUTHORS),
)  # fmt: skip
ITEMS: Final = tuple(ChecklistItem(*row) for row in _ROWS)

TRIPOD_AI: Final = Checklist(
    id="tripod-ai",
    title="TRIPOD+AI",
    citation="Collins et al. 2024, BMJ 385:e078378",
    items=ITEMS,
)
