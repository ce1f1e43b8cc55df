"""What `models` of a study needs: models that compare or fuse name what they are of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_NETWORKS: Final = frozenset({"federated", "pooled"})


def models_faults(
    models: Collection[str], preset: str, has_features: bool, private: bool
) -> tuple[tuple[bool, str], ...]:
    """Whether each fault is there, with its message. preset: `net.preset`. has_features: whether
    the study names feature tables. private: whether it has `[privacy]`."""
    named = set(models)
    return (
        (not named, "models: name at least one"),
        (
            "parent" in named and preset == "parent",
            'models: with net.preset = "parent", "parent" would repeat "pooled"; remove it',
        ),
        (
            "parent" in named and not named & {*_NETWORKS, "alone"},
            'models: "parent" is a comparison; name "federated", "pooled" or "alone" too',
        ),
        (
            "fusion" in named and not ("age_sex" in named and named & _NETWORKS),
            'models: "fusion" joins age and sex to a network; name "age_sex", and "federated" or '
            '"pooled", too',
        ),
        (
            "fusion" in named and private,
            'models: "fusion" is fitted on training patients without noise, so that the epsilon of '
            '[privacy] would not hold for the model; remove "fusion" or [privacy]',
        ),
        (
            any(m.startswith("radiomics") for m in named) and not has_features,
            "data.features: models of radiomics need it; name the feature tables",
        ),
    )
