"""How a trained model is used, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gliofed.markers import MARKERS
from gliofed.study import GridConfig, NetworkConfig, PreparationConfig, QualityConfig


@dataclass(frozen=True)
class MarkerClasses:
    """A marker that the network predicts, its classes in the order of the head's logits."""

    marker: str
    classes: tuple[str, ...]


CLASSES: Final = tuple(MarkerClasses(m.id, m.classes) for m in MARKERS)


@dataclass(frozen=True)
class ModelRecipe:
    """How a model is used, and its origin.

    name: of the study. run, rounds: of the training. study: the study's digest.
    gliofed: the version that wrote it. steps: name of the preparation's steps
    (`gliofed.data.store.RECIPE`), with the settings `prepare` and the voxels of `grid`; its patch
    is that of the training. quality: limits for a prepared case. mirror: whether predictions are
    averaged with those of the mirrored scan. synthetic: trained on phantoms. untrained: markers
    without an answer. caution: what a user must see with every prediction; may be empty. base: id
    of the model whose weights it began with; empty for random ones.
    """

    name: str
    run: str
    rounds: int
    study: str
    gliofed: str
    steps: str
    net: NetworkConfig
    grid: GridConfig
    prepare: PreparationConfig
    quality: QualityConfig
    mirror: bool
    synthetic: bool
    markers: tuple[MarkerClasses, ...] = CLASSES
    untrained: tuple[str, ...] = ()
    caution: str = ""
    base: str = ""

    @property
    def trained(self) -> tuple[MarkerClasses, ...]:
        """The markers with an answer."""
        return tuple(m for m in self.markers if m.marker not in self.untrained)


def with_global_maxima(recipe: ModelRecipe) -> ModelRecipe:
    """The recipe of a model from before heads could read anything else."""
    return replace(recipe, net=replace(recipe.net, pooling="max"))
