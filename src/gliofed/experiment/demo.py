"""The demo's study: six phantom hospitals, five that train and one that tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliofed.datasets.phantom import HOSPITALS
from gliofed.markers import MARKERS
from gliofed.study import Data, Federation, Grid, Loss, Net, Score, Study, Train

SEED = 1


def demo_study(root: Path) -> Study:
    """The study over the phantom hospitals written below `root`; the last one is external."""
    names = tuple(h.name for h in HOSPITALS)
    weights: Mapping[str, float] = {m.id: 1.0 for m in MARKERS}
    return Study(
        name="demo",
        data=Data(root=root, train=names[:-1], external=names[-1:], overlap="drop", synthetic=True),
        seeds=(SEED,),
        grid=Grid(spacing_mm=(4.0, 4.0, 4.0), patch=(36, 44, 36)),
        net=Net(preset="small"),
        train=Train(rounds=32, batch=2, lr=2e-3, drop_sequence=0.05, augment=0.4),
        federation=Federation(server_lr=2.5),
        score=Score(bootstrap=500),
        loss=Loss(markers=weights),
    )
