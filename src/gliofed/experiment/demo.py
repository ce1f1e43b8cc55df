"""The demo's study: six phantom hospitals, five that train and one that tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliofed.datasets.phantom import HOSPITALS
from gliofed.datasets.phantom.draw import SPACING_MM
from gliofed.markers import MARKERS
from gliofed.study import Data, Federation, Grid, Loss, Net, Prepare, Quality, Score, Study, Train

SEED = 1


def demo_study(root: Path) -> Study:
    """The study over the phantom hospitals written below `root`; the last one is external."""
    names = tuple(h.name for h in HOSPITALS)
    weights: Mapping[str, float] = {m.id: 1.0 for m in MARKERS}
    return Study(
        name="demo",
        data=Data(root=root, train=names[:-1], external=names[-1:], overlap="drop", synthetic=True),
        seeds=(SEED,),
        grid=Grid(spacing_mm=(SPACING_MM,) * 3, patch=(32, 40, 32)),
        prepare=Prepare(brain="stripped", register=False, space="scanner", bias=False),
        quality=Quality(brain_litres=(0.3, 2.2), alignment=0.0),  # too coarse to be told
        net=Net(preset="small"),
        train=Train(rounds=38, batch=1, lr=2e-3, drop_sequence=0.05, augment=0.6),
        federation=Federation(server_lr=3.0),
        score=Score(bootstrap=500),
        loss=Loss(markers=weights),
    )
