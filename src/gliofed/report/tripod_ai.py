"""TRIPOD+AI: what a report of a prediction model says; 27 items, 52 with their parts.

Collins et al. 2024, BMJ 385:e078378. Numbers and topics are those published; what each item asks is
put in our own words, and the paper decides where they differ.
"""

from __future__ import annotations

from typing import Final

from gliofed.report import account_data as data
from gliofed.report import account_model as model
from gliofed.report import account_results as results
from gliofed.report.checklist import Checklist, Item, for_authors

_T, _A, _I, _M = "Title", "Abstract", "Introduction", "Methods"
_O, _P, _R, _D = "Open science", "Patient and public involvement", "Results", "Discussion"
_USE = "Usability in current care"
_OUTCOME, _PREDICTORS, _METHODS = "Outcome", "Predictors", "Analytical methods"

ITEMS: Final = (
    Item("1", _T, "Title", "Development, test or both; patients; what is predicted.", model.title),
    Item("2", _A, "Abstract", "What TRIPOD+AI for Abstracts lists.", for_authors()),
    Item("3a", _I, "Background", "Diagnosis or prognosis; why a model; which ones there are.",
         for_authors()),
    Item("3b", _I, "Background", "For whom the model is, where in their care, used by whom.",
         model.purpose),
    Item("3c", _I, "Background", "Known inequalities in health between groups of people.",
         for_authors()),
    Item("4", _I, "Objectives", "The aims; whether a model is developed, tested or both.",
         model.objectives),
    Item("5a", _M, "Data", "Sources for development and for test; why these; whom they represent.",
         data.sources),
    Item("5b", _M, "Data", "From when to when data were collected and patients followed.",
         data.dates),
    Item("6a", _M, "Participants", "Kind of care; number and places of centres.", data.setting),
    Item("6b", _M, "Participants", "Who could take part.", data.eligibility),
    Item("6c", _M, "Participants", "Treatments, and how the analysis took them into account.",
         data.treatments),
    Item("7", _M, "Data preparation", "Processing and checks of the data; whether alike for all.",
         data.preparation),
    Item("8a", _M, _OUTCOME, "Each outcome: definition, time, how determined, why; alike for all.",
         model.definitions),
    Item("8b", _M, _OUTCOME, "Who judged an outcome that takes judgement; their training.",
         for_authors()),
    Item("8c", _M, _OUTCOME, "Whether those who judged it were blinded.", for_authors()),
    Item("9a", _M, _PREDICTORS, "Which predictors were considered, and any choice among them.",
         model.predictors),
    Item("9b", _M, _PREDICTORS, "Each predictor: definition, how and when measured, blinding.",
         model.measured),
    Item("9c", _M, _PREDICTORS, "Who judged a predictor that takes judgement; their training.",
         model.assessors),
    Item("10", _M, "Sample size", "How it came about, for development and test; whether enough.",
         data.size),
    Item("11", _M, "Missing data", "How missing data were handled; why any were left out.",
         data.missing),
    Item("12a", _M, _METHODS, "Which data served for what; how they were divided.",
         data.partitions),
    Item("12b", _M, _METHODS, "How predictors entered: form, scale, transformation.", model.inputs),
    Item("12c", _M, _METHODS, "Type of model and why; every step of building; internal test.",
         model.building),
    Item("12d", _M, _METHODS, "How differences between clusters (hospitals) were handled.",
         model.clusters),
    Item("12e", _M, _METHODS, "Measures and plots of performance and why; comparing models.",
         model.measures),
    Item("12f", _M, _METHODS, "Any change of the model after its test, as recalibration.",
         model.updating),
    Item("12g", _M, _METHODS, "How predictions were calculated for the test.", model.calculation),
    Item("13", _M, "Class imbalance", "What was done about it and why; recalibration after it.",
         model.imbalance),
    Item("14", _M, "Fairness", "What was done for fairness, and why.", results.fairness),
    Item("15", _M, "Model output", "Probability or class; how thresholds were set.", model.output),
    Item("16", _M, "Training versus evaluation",
         "How the data of development and test differ in care, patients, outcome and predictors.",
         data.differences),
    Item("17", _M, "Ethical approval", "Which committee approved; consent or its waiver.",
         for_authors()),
    Item("18a", _O, "Funding", "Who paid, and what part they had.", for_authors()),
    Item("18b", _O, "Conflicts of interest", "Of every author.", for_authors()),
    Item("18c", _O, "Protocol", "Where it is, or that there is none.", model.protocol),
    Item("18d", _O, "Registration", "Register and number, or that there is none.", for_authors()),
    Item("18e", _O, "Data sharing", "Whether and how others can have the data.",
         model.data_sharing),
    Item("18f", _O, "Code sharing", "Whether and how others can have the code.",
         model.code_sharing),
    Item("19", _P, "Patient and public involvement", "What part they had, or that they had none.",
         for_authors()),
    Item("20a", _R, "Participants", "Who came through each stage, with and without the outcome.",
         data.flow),
    Item("20b", _R, "Participants", "Characteristics overall and by source; what is missing.",
         data.characteristics),
    Item("20c", _R, "Participants", "Those tested beside those trained on.", data.compared),
    Item("21", _R, "Model development", "Patients and events in each analysis.", data.events),
    Item("22", _R, "Model specification", "The whole model, so that others can use and test it.",
         model.specification),
    Item("23a", _R, "Model performance", "Estimates with intervals, also for key subgroups.",
         results.performance),
    Item("23b", _R, "Model performance", "How performance differs between clusters.",
         results.heterogeneity),
    Item("24", _R, "Model updating", "The changed model and its performance.", results.no_update),
    Item("25", _D, "Interpretation", "What the results mean, for fairness too, and beside others'.",
         for_authors()),
    Item("26", _D, "Limitations", "Limits, and what they do to bias, uncertainty and reach.",
         results.limitations),
    Item("27a", _D, _USE, "What to do in use with poor or missing input.", model.unavailable),
    Item("27b", _D, _USE, "What users have to do, and with what expertise.", model.handling),
    Item("27c", _D, _USE, "What should be studied next.", for_authors()),
)  # fmt: skip

TRIPOD_AI: Final = Checklist(
    id="tripod-ai",
    title="TRIPOD+AI",
    citation="Collins et al. 2024, BMJ 385:e078378",
    items=ITEMS,
)
