"""What a site announces in place of its counts where the study has `[privacy]`."""

from __future__ import annotations

from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.schedule import batches_of_pass
from gliofed.markers import MARKERS
from gliofed.study import Study


def stated_cases_a_round(study: Study) -> int:
    """Cases that each update of a site claims to have: its even share of the batch."""
    return max(1, round(study.train.batch / max(1, len(study.data.train))))


def stated_counts(study: Study) -> LabelCounts:
    """The counts of one site as they follow from the study alone; nothing of the site is in them.

    All sites are equal, and so are the classes of a marker: the weights computed from them are the
    study's own. A task that the study leaves out has no label.
    """
    privacy = study.privacy
    assert privacy is not None, "callers ask for it"
    a_class = stated_cases_a_round(study) * batches_of_pass(privacy.patients, study.train.batch)
    cases = a_class * max(len(m.classes) for m in MARKERS)
    classes = {
        m.id: (0 if m.id in study.loss.unused else a_class,) * len(m.classes) for m in MARKERS
    }
    return LabelCounts(cases, cases if study.loss.mask > 0 else 0, classes)
