"""Trains the example model, `models/example`, from public whole brains.

    python studies/example_model.py DATA --out runs/example-model

DATA holds `tcga-lgg/HOSPITAL` (BIDS), `brats-tcga` (BraTS 2020, with name_mapping.csv), `brats-gli`
(BraTS 2023), and next to it `tables/tcga_subtypes_ceccarelli2016.csv`. It can be interrupted: the
same command goes on from the last committed round.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gliofed.cli.terminal import TerminalProgress
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.model_folders import reference_folders
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunOptions
from gliofed.experiments.validate import ValidateOptions, validate
from gliofed.fine_tuning_config import InitConfig
from gliofed.models.folder import read_model, write_model
from gliofed.study import Study, load_study

HERE: Final = Path(__file__).parent
LGG: Final = ("henry-ford-hospital", "case-western-st-joseph", "case-western")
WHOLE_HEAD: Final = "sub-TCGAFG6692"
"""Left out of training: this patient's unstripped scans are a test."""
TRAINED: Final = ("BraTS20_Training_158", "BraTS20_Training_198", "BraTS20_Training_316")
"""None of UCSF, the hospital of two test sets."""
TESTED: Final = ("BraTS20_Training_216", "BraTS20_Training_309", "BraTS20_Training_323")
LABELS: Final = "tcga_subtypes_ceccarelli2016.csv"


@dataclass(frozen=True)
class WholeBrains:
    """Settings of the second stage. patch: in voxels of 1 mm, as large as a brain in MNI152."""

    patch: tuple[int, int, int] = (160, 192, 160)
    epochs: int = 10
    batch: int = 2
    lr: float = 7e-4


WHOLE: Final = WholeBrains()
LICENCE: Final = """
## Licence of the weights

CC BY-NC-SA 4.0, apart from the code of gliofed (Apache-2.0): the masks of TCGA-LGG that trained it
have this licence (Buda et al. 2019). The scans of The Cancer Imaging Archive are CC BY 3.0.
"""


def link_data(data: Path, tables: Path, root: Path) -> None:
    """Below `root` a folder a hospital or data set, whose scans are links into `data`."""
    shutil.rmtree(root, ignore_errors=True)
    for hospital in LGG:
        link_hospital(data / "tcga-lgg" / hospital, root / hospital)
    for name, cases in (("brats", TRAINED), ("brats-test", TESTED)):
        link_all([data / "brats-tcga" / case for case in cases], root / name)
        link_all([data / "brats-tcga/name_mapping.csv", tables / LABELS], root / name)
    link_all(sorted((data / "brats-gli").iterdir()), root / "brats-gli")


def link_hospital(hospital: Path, root: Path) -> None:
    """A BIDS hospital without the patient of the whole head."""
    link_all([p for p in hospital.glob("sub-*") if p.name != WHOLE_HEAD], root)
    for derivative in (hospital / "derivatives").iterdir():
        own = [p for p in derivative.glob("sub-*") if p.name != WHOLE_HEAD]
        link_all(own, root / "derivatives" / derivative.name)
    with (hospital / "participants.tsv").open() as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[0] != WHOLE_HEAD]
    with (root / "participants.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def link_all(paths: Sequence[Path], folder: Path) -> None:
    """A link to each path in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path.name).symlink_to(path.resolve())


def study_on(root: Path) -> Study:
    """The study of the first stage, with its data below `root`."""
    study = load_study(HERE / "example-model.toml")
    return replace(study, data=replace(study.data, root=root))


def second_stage(study: Study, finished: FinishedRun) -> Study:
    """The study that goes on from the first stage's model, on whole brains instead of patches.

    The network normalises over all it is given. Trained on patches alone, it marks far too much in
    a whole brain. Every case trains: no patient is held out, so the model has no calibration.
    """
    (folder,) = reference_folders(finished)
    return replace(
        study,
        data=replace(study.data, holdout=0.0),
        init=InitConfig(read_model(folder).id, folder, lr=WHOLE.lr),
        grid=replace(study.grid, patch=WHOLE.patch),
        train=replace(study.train, epochs=WHOLE.epochs, batch=WHOLE.batch),
    )


def write_example(finished: FinishedRun, folder: Path) -> None:
    """The run's model with weights of half the size."""
    trained = read_model(reference_folders(finished)[0])
    rounded = {name: tensor.bfloat16() for name, tensor in trained.weights.items()}
    recipe = replace(trained.recipe, caution=caution_of(finished))
    card = trained.card.replace('license: "unknown"', 'license: "cc-by-nc-sa-4.0"') + LICENCE
    write_model(folder, recipe, rounded, trained.calibrations, lambda _: card)


def write_training_log(stages: Mapping[str, FinishedRun], path: Path) -> None:
    """Both stages as a table, a row for every point of their training curves."""
    lines = ["stage,rounds,mask_loss,dice_of_samples,gradient_norm,seconds"]
    for stage, finished in stages.items():
        for point in finished.trained[0].state.history:
            values = (point.losses.get("mask"), point.dice, point.gradient_norm, point.seconds)
            shown = ("" if v is None else f"{v:.4f}" for v in values)
            lines.append(",".join([stage, str(point.numbers[-1]), *shown]))
    path.write_text("\n".join(lines) + "\n")


def caution_of(finished: FinishedRun) -> str:
    """What every prediction of the model says, with the figures of its test."""
    trained = sum(len(cases) for cases in finished.trained[0].run.sites.values())
    (dice,) = (
        row
        for row in finished.rows
        if (row.model, row.role, row.site, row.metric)
        == ("federated", "external", "all", "dice_median")
    )
    return (
        f"Example model, for trials only: trained on {trained} scans of public data; median Dice "
        f"{dice.value:.2f} on {dice.n} scans of other patients; no test supports its markers."
    )


def main() -> None:
    """Link the data, train, write the model and test what was written."""
    parser = argparse.ArgumentParser(description="Trains the example model from public scans.")
    parser.add_argument("data", type=Path, help="folder of tcga-lgg, brats-tcga and brats-gli")
    parser.add_argument("--out", type=Path, default=Path("runs/example-model"))
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/example")
    options = parser.parse_args()
    root = (options.out / "data").resolve()
    link_data(options.data, options.data.parent / "tables", root)
    store = RunOptions(store=options.out / "store")
    with TerminalProgress() as progress:
        study = study_on(root)
        patches = run_study(study, options.out / "run", progress, store)
        finished = run_study(second_stage(study, patches), options.out / "whole", progress, store)
        write_example(finished, options.model)
        log = options.model.with_name(f"{options.model.name}-training.csv")
        write_training_log({"patches": patches, "whole": finished}, log)
        for name, layout in (("brats-test", "tcga"), ("brats-gli", "brats")):
            test = ValidateOptions(layout, options.out / "store")
            out = options.out / f"validated-{name}"
            validation = validate(options.model, [root / name], out, test, progress)
            progress.note(f"{name}: {validation.page}")


if __name__ == "__main__":
    main()
