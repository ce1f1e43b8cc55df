"""What a made-up run of three hospitals and an external one knows of itself."""

from __future__ import annotations

from made_up_federation import EXTERNAL, make_study
from made_up_run import TRAIN
from made_up_run import make_content as make_run

from gliofed.markers import MARKERS
from gliofed.reporting.checklists.run_facts import (
    CaseGroup,
    HospitalFacts,
    ModelFacts,
    RunFacts,
    SplitFacts,
)
from gliofed.reporting.study.content import StudyContent
from gliofed.types import SEQUENCES, Sequence


def make_group(cases: int, **changes: object) -> CaseGroup:
    """Cases of which a fifth lacks T1CE, a tenth an outline, and two know nothing of a marker."""
    known = max(cases - 2, 0)
    classes = {
        m.id: (known - (len(m.classes) - 1) * (known // 3), *[known // 3] * (len(m.classes) - 1))
        for m in MARKERS
    }
    whole = {
        "cases": cases, "patients": cases, "masks": cases - cases // 10, "classes": classes,
        "missing": {s: cases // 5 if s is Sequence.T1CE else 0 for s in SEQUENCES},
        "sexes": {"F": cases // 2, "M": cases // 3}, "ages": known,
        "age_quartiles": (41.0, 55.0, 66.0) if known else None, "scanners": 0,
    }  # fmt: skip
    return CaseGroup(**{**whole, **changes})


def make_facts(content: StudyContent | None = None, **changes: object) -> RunFacts:
    content = content or make_run(cases=12, seeds=(1,), rounds=2, replicates=60)
    training = tuple(HospitalFacts(s, "training", make_group(60)) for s in TRAIN)
    public = ("UCSF-PDGM", "CC BY 4.0", "Calabrese et al. 2022")
    whole = {
        "study": make_study(),
        "all_cases": make_group(241),
        "hospitals": (*training, HospitalFacts(EXTERNAL, "external test", make_group(61), *public)),
        "splits": (SplitFacts(1, "external", make_group(150), make_group(30), make_group(60)),),
        "dropped": (("leiden/sub-009", "the same patient is at amsterdam"),),
        "excluded": (("gent/sub-003", "gent", "the brain mask has 0.31 L"),),
        "overlap": "242 patients of 4 hospitals were compared by id: no patient stands at two.",
        "rows": content.scored.rows,
        "models": (
            ModelFacts("federated", 1, "external", 30, 90.0, 4_100_000, 2, "models/a.safetensors",
                    "ab" * 32),
        ),
        "parameters": 1_204_331,
        "versions": {"gliofed": "0.1.0", "torch": "2.8.0"},
        "machine": "cpu, float32",
    }  # fmt: skip
    return RunFacts(**{**whole, **changes})
