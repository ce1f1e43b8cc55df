"""Features of the masks that a trained network predicts, for its training and test cases.

Each case is predicted once more; the features are then read from the disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.experiments.model_runs import TrainedModelRun
from gliofed.experiments.run_context import RunContext
from gliofed.experiments.train_and_test import trained_predictor
from gliofed.radiomics.input_names import MASK_FEATURES
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress


def features_of_masks(
    context: RunContext, trained: TrainedModelRun, progress: Progress
) -> Mapping[str, Values]:
    """ "site/id" to (F,) values of `MASK_FEATURES`, of all cases that the run trains on or tests.

    Raises DataError for a damaged file.
    """
    run = trained.run
    name = run.test_id(context.study, context.prepared)[:12]
    path = run.folder(context.out) / f"mask-features-{name}.json"
    if not path.exists():
        training = [c for cases in run.sites.values() for c in cases]
        cases = dict.fromkeys(str(c) for c in (*training, *(c for _, c in run.test_cases)))
        predictor = trained_predictor(context, trained)
        found = {}
        for done, case in enumerate(cases):
            progress.update(done, len(cases), case)
            values = predictor.mask_features(context.prepared[case])
            found[case] = [v if np.isfinite(v) else None for v in values.tolist()]
        write_text(path, json.dumps(found, indent=0) + "\n")
    try:
        held = {case: np.array(v, float) for case, v in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError):
        held = {}
    if not held or any(v.shape != (len(MASK_FEATURES),) for v in held.values()):
        raise DataError(f"{path}: damaged; delete it and start again")
    return held
