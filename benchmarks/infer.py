"""A whole case, from NIfTI to a mask on its scans and its markers: gliofed, and MONAI's windows.

    python benchmarks/infer.py MODEL CASES [--case NAME ...]

MODEL: a model's folder, trained at 1 mm. CASES: a folder of case folders in the style of BraTS
(240 x 240 x 155, four sequences, already stripped). The same network in both, on all cores:

- MONAI: its loaders, z-scores where not 0, `sliding_window_inference` of the whole image with
  96-cubed windows that overlap by half, four at a time, cut at one half, `SaveImage`. No markers: a
  window sees a part of the brain.
- gliofed: what `gliofed predict` does with a case, checks and markers included. As scanned; the
  second row also mirrored, as models answer where their study says so (the default).

Three clocks: the network alone, the whole case, and the most memory that a process of its own held,
libraries included. Dice is between the outlines of both ways, as scanned; and of each with the
experts' mask, where a case has one. Every figure is of each case, then the median over all cases.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

ENDINGS = ("_t1.nii*", "_t1ce.nii*", "_t2.nii*", "_flair.nii*")
WINDOW, OVERLAP, AT_ONCE = (96, 96, 96), 0.5, 4
WAYS = ("monai", "gliofed", "gliofed mirrored")


def timed(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def by_monai(model: Path, case: Path, out: Path) -> dict[str, float]:
    import torch
    from monai import transforms as tf
    from monai.inferers import sliding_window_inference

    from gliofed.models.folder import read_model

    net = read_model(model).net()

    def outline(windows: torch.Tensor) -> torch.Tensor:
        return net(windows, torch.ones(len(windows), 4)).mask

    load = tf.Compose([
        tf.LoadImaged(ENDINGS),
        tf.EnsureChannelFirstd(ENDINGS),
        tf.ConcatItemsd(ENDINGS, "image"),
        tf.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
    ])  # fmt: skip
    started = time.perf_counter()
    image = load({e: str(next(case.glob(f"*{e}"))) for e in ENDINGS})["image"]
    with torch.inference_mode():
        alone, logits = timed(lambda: sliding_window_inference(
            image[None], WINDOW, AT_ONCE, outline, overlap=OVERLAP))  # fmt: skip
    mask = (logits[0] >= 0).to(torch.uint8)  # half, as a probability
    tf.SaveImage(out, "mask", ".nii.gz", separate_folder=False, print_log=False)(mask)
    return {"network": alone, "whole": time.perf_counter() - started}


def by_gliofed(model: Path, case: Path, out: Path, mirror: bool) -> dict[str, float]:
    from gliofed.inference import batch, forward
    from gliofed.inference.batch import BatchOptions, predict_all
    from gliofed.models.folder import read_model
    from gliofed.runtime.device import this_machine
    from gliofed.runtime.progress import NO_PROGRESS

    own = read_model(model)
    own = dataclasses.replace(own, recipe=dataclasses.replace(own.recipe, mirror=mirror))
    alone = []

    def passes(*asked: object) -> object:
        seconds, found = timed(lambda: before(*asked))
        alone.append(seconds)
        return found

    before, forward._passes = forward._passes, passes  # the network's part of the whole
    assert batch.answer_case.__module__ == "gliofed.inference.case"
    seconds, statuses = timed(
        lambda: predict_all(
            case,
            own,
            BatchOptions(out, out / "store"),
            this_machine(),
            NO_PROGRESS,
        )
    )
    (status,) = statuses
    if status.status != "predicted":
        raise SystemExit(f"{case}: {status.reasons}")
    return {"network": sum(alone), "whole": seconds}


def one(way: str, model: Path, case: Path, out: Path) -> None:
    """In a process of its own; the figures as JSON."""
    warnings.simplefilter("ignore")
    if way == "monai":
        found = by_monai(model, case, out)
    else:
        found = by_gliofed(model, case, out, way.endswith("mirrored"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**found, "peak": peak}))


def dice(one_mask: Path, other: Path) -> float:
    import nibabel as nib

    a, b = (np.asarray(nib.load(p).dataobj).squeeze() > 0 for p in (one_mask, other))
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def measured(model: Path, case: Path) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        masks = {}
        for way in WAYS:
            out = Path(folder) / way
            done = subprocess.run(
                [sys.executable, __file__, str(model), str(case), "--way", way, "--out", str(out)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            rows[way] = json.loads(done.stdout.splitlines()[-1])
            masks[way] = next(out.rglob("*FLAIR_mask.nii.gz" if way != "monai" else "*mask.nii.gz"))
        truth = next(case.glob("*_seg.nii*"), None)
        for way in WAYS:
            rows[way]["with monai"] = dice(masks["monai"], masks[way])
            if truth:
                rows[way]["with expert"] = dice(truth, masks[way])
    return rows


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    base = rows["monai"]
    print(f"\n{title}")
    print(f"{'':18}{'network s':>10}{'ratio':>7}{'whole s':>9}{'ratio':>7}{'peak GiB':>10}"
          f"{'Dice, MONAI':>13}{'expert':>8}")  # fmt: skip
    for way, row in rows.items():
        print(f"{way:18}{row['network']:10.2f}{base['network'] / row['network']:7.1f}"
              f"{row['whole']:9.2f}{base['whole'] / row['whole']:7.1f}{row['peak']:10.2f}"
              f"{row['with monai']:13.3f}{row.get('with expert', float('nan')):8.3f}")  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("model", type=Path)
    asked.add_argument("cases", type=Path)
    asked.add_argument("--case", action="append", default=[])
    asked.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    own = asked.parse_args()
    if own.way:
        one(own.way, own.model, own.cases, own.out)
        return
    every = []
    for case in sorted(p for p in own.cases.iterdir() if p.is_dir()):
        if not own.case or case.name in own.case:
            every.append(measured(own.model, case))
            show(case.name, every[-1])
    middle = {
        way: {k: statistics.median(e[way][k] for e in every) for k in every[0][way]} for way in WAYS
    }
    show(f"Median of {len(every)} cases", middle)


if __name__ == "__main__":
    main()
