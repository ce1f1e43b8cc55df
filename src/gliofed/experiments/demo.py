"""The demo's study: six phantom hospitals, five that train and one that tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliofed.data.phantom import HOSPITALS
from gliofed.data.phantom.images import SPACING_MM
from gliofed.markers import MARKERS
from gliofed.study import (
    DataConfig,
    GridConfig,
    LossConfig,
    NetworkConfig,
    PreparationConfig,
    QualityConfig,
    ScoreConfig,
    Study,
    TrainingConfig,
)

SEED = 1


def demo_study(root: Path) -> Study:
    """The study over the phantom hospitals written below `root`; the last one is external."""
    names = tuple(h.name for h in HOSPITALS)
    weights: Mapping[str, float] = {m.id: 1.0 for m in MARKERS}
    return Study(
        name="demo",
        data=DataConfig(
            root=root, train=names[:-1], external=names[-1:], overlap="drop", synthetic=True
        ),
        seeds=(SEED,),
        grid=GridConfig(spacing_mm=(SPACING_MM,) * 3, patch=(32, 40, 32)),
        prepare=PreparationConfig(brain="stripped", register=False, space="scanner", bias=False),
        quality=QualityConfig(brain_litres=(0.3, 2.2), alignment=0.0),  # coarse voxels
        net=NetworkConfig(preset="small"),
        train=TrainingConfig(epochs=38, batch=8, lr=2e-3, drop_sequence=0.05, augment=0.6),
        score=ScoreConfig(bootstrap=500),
        loss=LossConfig(markers=weights),
    )
