"""The preoperative gate on masks: whole tumour is every label above 0 only before an operation.

After one, sets draw the resection cavity as a label of its own (BraTS 2024: 4 beside 1, 2 and 3),
and "above 0" would teach the network to outline a hole. Rows and folders that say they are
postoperative are refused by their adapters; this is the test for the mask's own values.
"""

from __future__ import annotations

from collections.abc import Iterable

from gliofed.errors import DataError
from gliofed.types import Case


def check_mask_labels(case: Case, values: Iterable[float]) -> None:
    """Hold a mask's values above 0 to the label convention that its adapter declared.

    Raises DataError for any other value. A case without a declared convention passes.
    """
    strange = sorted(set(values) - case.mask_labels) if case.mask_labels else []
    if not strange:
        return
    shown = ", ".join(f"{v:g}" for v in strange[:5])
    raise DataError(
        f"{case}: {case.mask} holds label {shown}; this data set's preoperative masks hold "
        f"{', '.join(map(str, sorted(case.mask_labels)))}. A further label is most often the "
        "resection cavity of a scan after surgery (BraTS 2024), which is not tumour: leave this "
        "case out, or correct the mask"
    )
