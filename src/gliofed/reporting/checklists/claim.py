"""CLAIM, the update of 2024: 44 reporting items for AI in medical imaging.

Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300. Numbers and sections are those
published; the items are paraphrased, and the paper takes precedence.
"""

from __future__ import annotations

from typing import Final

from gliofed.reporting.checklists.answers import FOR_AUTHORS
from gliofed.reporting.checklists.checklist import Checklist, ChecklistItem

_T, _I, _D, _X = "Title and abstract", "Introduction", "Discussion", "Other information"
_STUDY, _DATA, _REF = "Methods: study design", "Methods: data", "Methods: reference standard"
_PARTS, _TEST, _MODEL = "Methods: data partitions", "Methods: testing data", "Methods: model"
_TRAIN, _EVAL = "Methods: training", "Methods: evaluation"
_RDATA, _RMODEL = "Results: data", "Results: model performance"


_ROWS: Final = (
    ("1", _T, "Title", "That it is a study of AI, and of which kind.", "title"),
    ("2", _T, "Abstract", "Design, methods, results and conclusions.", FOR_AUTHORS),
    ("3", _I, "Background", "Science and medicine behind it; intended use and role.", "purpose"),
    ("4", _I, "Objectives", "Aims and hypotheses.", "objectives"),
    ("5", _STUDY, "Design", "Prospective or retrospective.", "design"),
    ("6", _STUDY, "Goal", "What the study is for.", "objectives"),
    ("7", _DATA, "Sources", "Where the data are from.", "sources"),
    ("8", _DATA, "Eligibility", "Who and what was taken in and left out.", "eligibility"),
    ("9", _DATA, "Preprocessing", "Every step before the network.", "preparation"),
    ("10", _DATA, "Subsets", "How parts of the data were chosen.", "subsets"),
    ("11", _DATA, "De-identification", "How patients were made unrecognisable.",
     "deidentification"),
    ("12", _DATA, "Missing data", "How they were handled.", "missing"),
    ("13", _DATA, "Acquisition", "How the images were made.", "acquisition"),
    ("14", _REF, "Definition", "How the reference standard was obtained.", "definitions"),
    ("15", _REF, "Rationale", "Why this one.", FOR_AUTHORS),
    ("16", _REF, "Source", "Who made the annotations; their training.", FOR_AUTHORS),
    ("17", _REF, "Test set", "How the test set was annotated.", FOR_AUTHORS),
    ("18", _REF, "Variability", "How far annotators differ from others and themselves.",
     FOR_AUTHORS),
    ("19", _PARTS, "Assignment", "How data were divided.", "partitions"),
    ("20", _PARTS, "Disjointness", "What no two parts share: image, patient, hospital.",
     "disjoint"),
    ("21", _TEST, "Sample size", "The intended size of the test set.", "size"),
    ("22", _MODEL, "Description", "The network, its inputs and outputs.", "architecture"),
    ("23", _MODEL, "Software", "Libraries and packages, with versions.", "software"),
    ("24", _MODEL, "Initialisation", "How parameters began.", "initialisation"),
    ("25", _TRAIN, "Approach", "How it was trained, in detail.", "training"),
    ("26", _TRAIN, "Final model", "How the final model was chosen.", "selection"),
    ("27", _TRAIN, "Ensembles", "How several models were combined.", "ensembling"),
    ("28", _EVAL, "Metrics", "How performance is measured.", "measures"),
    ("29", _EVAL, "Uncertainty", "How uncertainty and significance are measured.", "uncertainty"),
    ("30", _EVAL, "Robustness", "What was varied to see whether results hold.", "robustness"),
    ("31", _EVAL, "Explanation", "How answers are explained.", "explanation"),
    ("32", _EVAL, "Internal test", "Test on data from where it was trained.", "internal"),
    ("33", _EVAL, "External test", "Test on data from elsewhere.", "external"),
    ("34", _EVAL, "Registration", "Of a clinical trial.", FOR_AUTHORS),
    ("35", _RDATA, "Numbers", "How many were taken in and left out.", "flow"),
    ("36", _RDATA, "Characteristics", "Who the patients of each part are.", "by_partition"),
    ("37", _RMODEL, "Performance", "Figures with their uncertainty.", "performance"),
    ("38", _RMODEL, "Diagnosis", "Diagnostic performance and its precision.", "precision"),
    ("39", _RMODEL, "Failures", "What went wrong, and why.", "failures"),
    ("40", _D, "Limitations", "Limits of the study.", "limitations"),
    ("41", _D, "Implications", "For practice; intended use and role.", "implications"),
    ("42", _X, "Protocol", "Where the full protocol or further details are.", "protocol"),
    ("43", _X, "Availability", "Of software, trained model and data.", "availability"),
    ("44", _X, "Funding", "Who paid, and what part they had.", FOR_AUTHORS),
)  # fmt: skip
ITEMS: Final = tuple(ChecklistItem(*row) for row in _ROWS)

CLAIM: Final = Checklist(
    id="claim",
    title="CLAIM, 2024 update",
    citation="Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300",
    items=ITEMS,
)
