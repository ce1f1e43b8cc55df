"""How much of the noise each site adds, and how large a gradient then is."""

from __future__ import annotations

import math

from gliofed.errors import StudyError
from gliofed.federated.noise.accounting import mechanism_of
from gliofed.federated.privacy.slot import threshold
from gliofed.federation_config import LARGEST_SUM
from gliofed.study import Study


def sharing_sites(study: Study) -> int:
    """Sites that have the whole noise of `[privacy]` together; 1: each has all of it.

    With secret sums, as many as any sum has at least: a site opens no sum of fewer. So the noise of
    a sum is whole without the sites that are missing from it.
    """
    if study.federation.privacy == "none":
        return 1
    return threshold(len(study.data.train))


def noise_of_site(study: Study) -> float:
    """Standard deviation of a site's noise in each value of a gradient, over the batch.

    0 without `[privacy]`.
    """
    if study.privacy is None:
        return 0.0
    whole = mechanism_of(study).noise * study.privacy.clip / study.train.batch
    return whole / math.sqrt(sharing_sites(study))


def largest_gradient(study: Study, values: int) -> float:
    """Bound of the L2 norm of a site's gradient of `values` numbers.

    `federation.max_gradient`, and with `[privacy]` twice the norm that the noise has on average.
    Raises StudyError where secret sums have no room for the noise.
    """
    bound = study.federation.max_gradient + 2 * noise_of_site(study) * math.sqrt(values)
    if study.federation.privacy != "none" and bound * len(study.data.train) > LARGEST_SUM:
        raise StudyError(
            'privacy: the noise is too large for federation.privacy = "secure-sum"; give a larger '
            "train.batch or epsilon"
        )
    return bound
