"""The files that the commands of each page of docs/how-to find: small, made up, as if made by its reader."""

from __future__ import annotations

import dataclasses
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import dicom_maker
import dicom_series as dicom
import nibabel as nib
import numpy as np
from conftest import write_hospital
from ellipsoid import NETWORK, SIZE, ellipsoid, rigid
from federation_kits import make_kits
from how_to import PAGES, Desk, block_with
from made_up_sets import PUBLISHED, small_version, write_sets
from small_model import make_model
from trees import TREES

from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.models.folder import recipe_of, write_model
from gliofed.models.network import build_net
from gliofed.study import load_study, parse_study, study_toml
from gliofed.types import Placement, PreparationMeasures, Sequence

HOSPITALS: Final = ("north", "east", "west", "south")
SMALL: Final = """
[grid]
spacing_mm = [2.0, 2.0, 2.0]
patch = [16, 16, 16]
[prepare]
brain = "stripped"
register = false
space = "scanner"
bias = false
[quality]
brain_litres = [0.0, 9.0]
alignment = 0.0
[score]
bootstrap = 100
"""
"""Settings below a printed study: cases that are drawn in seconds."""
STUDY: Final = """
name = "four"
models = ["federated"]
[data]
root = "{root}"
train = ["north", "east", "west"]
external = ["south"]
[train]
epochs = 1
"""


def write_hospitals(root: Path, names: tuple[str, ...] = HOSPITALS, cases: int = 3) -> None:
    """Below `root`/data/glioma; every patient has an id of its own."""
    for number, name in enumerate(names):
        rows = {f"{name}{n}": (str(n % 2), "0", "1", "4") for n in range(cases)}
        write_hospital(root / "data/glioma" / name, rows, seed=number + 1)


def hospitals(root: Path) -> Desk:
    """Four hospitals, and their study under the names that pages use."""
    write_hospitals(root)
    for name in ("four.toml", "study.toml"):
        Path(name).write_text(STUDY.format(root=root / "data/glioma") + SMALL)
    return Desk(root, {})


def approving(root: Path) -> Desk:
    desk = hospitals(root)
    shutil.copytree(_kit(root), "KIT")
    shutil.copy("KIT/gliofed/policy.toml", "policy.toml")
    return desk


def _kit(root: Path) -> Path:
    make_kits(root / "kits", "north")
    return root / "kits/north"


def auditing(root: Path) -> Desk:
    own = AuditLog(Path("KIT/gliofed/audit.jsonl"), "north-hospital")
    own.write("started")
    shutil.copytree("KIT/gliofed", "site")
    server = AuditLog(Path("server/audit.jsonl"), "server")
    server.note("north-hospital", own.head())
    return Desk(root, {})


def bringing(root: Path) -> Desk:
    desk = hospitals(root)
    (root / "data/UCSF-PDGM").mkdir()
    TREES["ucsf_pdgm"](root / "data/UCSF-PDGM")
    return desk


def public_sets(root: Path) -> Desk:
    """The eight sets, three patients each, and their study, below the folder of the commands."""
    write_sets(Path("data/five-public-sets"), dict.fromkeys(PUBLISHED, 3))
    study = load_study(PAGES.parents[1] / "studies/five-public-sets.toml")
    Path("studies").mkdir()
    small = small_version(study, Path("../data/five-public-sets"))
    Path("studies/five-public-sets.toml").write_text(study_toml(small))
    return Desk(root, {})


def exporting_models(root: Path) -> Desk:
    make_model(Path("models/federated"))
    return Desk(root, {})


def exporting_masks(root: Path) -> Desk:
    """A prepared case of two scans that were DICOM, a mask of it, and its correction."""
    anat = root / "data/glioma/north/sub-X/anat"
    anat.mkdir(parents=True)
    placements, sources = {}, {}
    matrix = rigid((10.0, -20.0, 15.0), (4.0, -3.0, 6.0))
    for sequence, folder, suffix in (
        (Sequence.FLAIR, "flair", "FLAIR"),
        (Sequence.T1CE, "t1_gd", "ce-gd_T1w"),
    ):
        made = dicom.Made(48, 52, 12, (0.9, 1.0, 4.0), dicom.oblique(), 1, (-28.0, -22, -18))
        dicom.write_series(root / "dicom/patient" / folder, made)
        scan = np.arange(48 * 52 * 12, dtype=np.int16).reshape(12, 52, 48).transpose(2, 1, 0)
        path = anat / f"sub-X_{suffix}.nii.gz"
        nib.save(nib.Nifti1Image(scan, made.affine()), path)
        placements[sequence] = Placement(scan.shape, made.affine(), matrix)
        sources[sequence.value] = {"file": path.name}
    (anat.parents[1] / "participants.tsv").write_text("participant_id\nsub-X\n")
    image = np.zeros((4, *SIZE), np.float16)
    image[:, 5:-5, 5:-5, 5:-5] = 1
    entry = StoreEntry(
        image=image,
        mask=None,
        present=(False, True, False, True),
        affine=NETWORK,
        placements=placements,
        mask_placement=None,
        measures=PreparationMeasures(1.3, None, {}),
        brain="stripped",
        reference=Sequence.FLAIR,
    )
    PreparedStore(Path("runs/study/store")).put("3f2a", entry, {"sources": sources})
    nib.save(nib.Nifti1Image(ellipsoid().astype(np.uint8), NETWORK), "mask.nii.gz")
    return Desk(root, {"3f2a...": "3f2a"})


def correct(root: Path) -> None:
    """What a reader does in a viewer between the two commands: a voxel fewer."""
    exported = nib.load("exported/sub-X_space-orig_label-tumor_desc-FLAIR_mask.nii.gz")
    data = np.asarray(exported.dataobj).copy()
    data[tuple(np.argwhere(data)[0])] = 0
    nib.save(nib.Nifti1Image(data, exported.affine), "corrected.nii.gz")


def taking_in(root: Path) -> Desk:
    dicom_maker.write_study(root / "export/glioma")
    dicom_maker.write_study(root / "secure/incoming")
    for name, date in (("first", "20190730"), ("second", "20200112")):
        blank = dicom_maker.Who(id="", date=date)
        dicom_maker.write_study(root / "export/blank" / name, who=blank)
    return Desk(root, {})


def publishing(root: Path) -> Desk:
    desk = hospitals(root)
    Path("statements.toml").write_text(block_with(PAGES / "publish-your-results.md", "[tripod-ai]"))
    return desk


def scoring(root: Path) -> Desk:
    page = PAGES / "score-any-model.md"
    table = block_with(page, "patient,idh_true")
    Path("resnet.toml").write_text(block_with(page, 'model = "resnet"'))
    Path("resnet-output.csv").write_text(block_with(page, "ID;Centre;"))
    for path in ("run/predictions.csv", "ours.csv", "theirs.csv"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(table)
    return Desk(root, {})


def validating(root: Path) -> Desk:
    """A model, a hospital of five patients of each class, and another program's masks of them."""
    make_model(Path("models/federated"))
    write_hospitals(root, ("north",), cases=10)
    north = root / "data/glioma/north"
    Path("peer").mkdir()
    lines = ["case,idh_p"]
    for mask in sorted(north.glob("derivatives/*/*/*/*_mask.nii.gz")):
        case = mask.name.split("_")[0].removeprefix("sub-")
        shutil.copy(mask, f"peer/{case}_seg.nii.gz")
        lines.append(f"{case},0.5")
    Path("peer/predictions.csv").write_text("\n".join(lines))
    return Desk(root, {})


def fine_tuning(root: Path) -> Desk:
    """The printed study, with the id of a model that was made for its settings."""
    write_hospitals(root)
    text = block_with(PAGES / "fine-tune-a-model.md", 'name = "fine-tuned"')
    text = text.replace("/data/glioma", str(root / "data/glioma")).replace(
        "epochs = 10", "epochs = 1"
    )
    text = text.replace(', "pooled"', "") + SMALL  # one network is trained in this process
    study = parse_study(tomllib.loads(text))
    weights = build_net(study.net, seed=5).state_dict()
    recipe = recipe_of(dataclasses.replace(study, init=None), "ab" * 12, 3)
    id_ = write_model(Path("models/example"), recipe, weights, {}, lambda _: "")
    Path("fine-tune.toml").write_text(text.replace(study.init.digest, id_))
    return Desk(root, {})


SCENES: Final[Mapping[str, Callable[[Path], Desk]]] = {
    "approve-a-study": approving,
    "audit": auditing,
    "bring-your-data": bringing,
    "check-your-data": hospitals,
    "export-a-model": exporting_models,
    "export-masks": exporting_masks,
    "find-shared-patients": hospitals,
    "five-public-sets": public_sets,
    "fine-tune-a-model": fine_tuning,
    "from-dicom": taking_in,
    "prepare-your-scans": hospitals,
    "publish-your-results": publishing,
    "radiomics": hospitals,
    "read-the-results": scoring,
    "resume-and-repeat": hospitals,
    "run-a-study": hospitals,
    "run-on-a-gpu": hospitals,
    "score-any-model": scoring,
    "validate-a-model": validating,
}
"""Of each page with commands; those of run-a-federation are a test of their own."""
BETWEEN: Final[Mapping[str, Callable[[Path], None]]] = {"gliofed correct corrected.nii.gz": correct}
"""What is done by hand before a command, by its beginning."""
