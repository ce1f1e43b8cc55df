"""Checks the labels of a mask against its data set, which refuses postoperative masks.

Before surgery, whole tumour is every label above 0. After it, data sets draw the resection cavity
as a further label (BraTS 2024: 4 besides 1, 2 and 3), which is not tumour. Readers refuse rows and
folders that are marked as postoperative; this check covers the values of the mask.
"""

from __future__ import annotations

from collections.abc import Iterable

from gliofed.errors import DataError
from gliofed.types import Case


def check_mask_labels(case: Case, values: Iterable[float]) -> None:
    """Raises DataError for values above 0 outside the labels that the case's reader declared.

    A case without declared labels passes.
    """
    unexpected = sorted(set(values) - case.mask_labels) if case.mask_labels else []
    if not unexpected:
        return
    labels = ", ".join(f"{v:g}" for v in unexpected[:5])
    raise DataError(
        f"{case}: {case.mask} holds label {labels}; this data set's preoperative masks hold "
        f"{', '.join(map(str, sorted(case.mask_labels)))}. A further label is most often the "
        "resection cavity of a scan after surgery (BraTS 2024), which is not tumour: remove this "
        "case, or correct the mask"
    )
