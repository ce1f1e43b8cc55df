"""A model as a folder: all that its use needs, nothing that is not checked, and no pickle.

    <folder>/model.json            format, recipe, and the SHA-256 of each other file
    <folder>/weights.safetensors   tensors by parameter name
    <folder>/calibrations.json     where the model was calibrated
    <folder>/model-card.md         what it is for and what it rests on

`model.json` is written last and the folder moved to its place whole. The id of a model is of its
recipe, weights and calibration; its card may be written anew without being another model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gliofed.calibration.calibrator import Calibration
from gliofed.calibration.files import calibration_json, parse_calibration
from gliofed.data.store import RECIPE
from gliofed.errors import DataError, ModelError, StudyError
from gliofed.markers import MARKERS
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.runtime.files import keep, keep_folder
from gliofed.settings import build
from gliofed.study import GridConfig, NetworkConfig, PreparationConfig, QualityConfig, Study
from gliofed.version import __version__

FORMAT: Final = 2
"""Of the folder. 1 was the weights alone, as one message of `gliofed.federated.messages`."""
RECORD: Final = "model.json"
WEIGHTS: Final = "weights.safetensors"
CALIBRATIONS: Final = "calibrations.json"
CARD: Final = "model-card.md"
_LARGEST: Final = 2**20
"""Bytes of a record: it is read before its digest can be known."""


@dataclass(frozen=True)
class MarkerClasses:
    """A marker that the network answers, its classes in the order of the head's logits."""

    marker: str
    classes: tuple[str, ...]


CLASSES: Final = tuple(MarkerClasses(m.id, m.classes) for m in MARKERS)


@dataclass(frozen=True)
class ModelRecipe:
    """How a model is used, and where it is from.

    name: of the study. run, rounds: which training, and how far. study: the study's digest.
    gliofed: the version that wrote it. steps: name of the preparation's steps
    (`gliofed.data.store.RECIPE`), set by `prepare`, to voxels of `grid`; its patch says what the
    network was trained on. quality: what a prepared case must reach. mirror: whether answers
    are averaged with those of the mirrored scan. synthetic: trained on drawn patients.
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


@dataclass(frozen=True)
class TrainedModel:
    """A model as read. id: hexadecimal digest. weights: of the CPU. card: Markdown, or empty.

    calibrations: by how many of the four sequences the cases lacked that it was fitted on, at
    most; empty where there is none.
    """

    id: str
    recipe: ModelRecipe
    weights: Mapping[str, Tensor]
    calibrations: Mapping[int, Calibration]
    card: str

    def fitted_for(self, missing: int) -> int | None:
        """Which of `calibrations` is for a case that lacks `missing` sequences: fitted on cases
        that lack as many, else more, else on those that lack most. None without a calibration."""
        if not self.calibrations:
            return None
        enough = [n for n in self.calibrations if n >= missing]
        return min(enough, default=max(self.calibrations))

    def net(self) -> MultiTaskNet:
        """The network with these weights, ready to answer."""
        own = self.recipe.net
        net = build_net(own.preset, own.stem, seed=0)
        net.load_state_dict(dict(self.weights))
        return net.eval()


def write_model(
    folder: Path,
    recipe: ModelRecipe,
    weights: Mapping[str, Tensor],
    calibrations: Mapping[int, Calibration],
    card: Callable[[str], str],
) -> str:
    """Write the folder whole, in the place of an older one; the model's id.

    card: from the id to the card's text; empty for none. Notes of calibrations, which name
    sites, are left out. Equal inputs give equal bytes. Raises ModelError where `folder` is there
    and no model, OSError where the disk does not take it; what was there then stays.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise ModelError(f"{folder}: is there and is no model; choose another name")
    held = {k: v.detach().to("cpu").contiguous() for k, v in sorted(weights.items())}
    files = {WEIGHTS: safetensors.torch.save(held)}
    if calibrations:
        files[CALIBRATIONS] = _calibrations_json(calibrations).encode()
    own = model_id_of(_record(recipe, files))
    if text := card(own):
        files[CARD] = text.encode()
    record = json.dumps(_record(recipe, files), indent=1, ensure_ascii=False)
    _place(folder, {**files, RECORD: record.encode()})
    return own


def recipe_of(study: Study, run: str, rounds: int) -> ModelRecipe:
    """How the model of a study's training is used. No site is named in it."""
    return ModelRecipe(
        study.name,
        run,
        rounds,
        study.digest,
        __version__,
        RECIPE,
        study.net,
        study.grid,
        study.prepare,
        study.quality,
        study.score.mirror,
        study.data.synthetic,
    )


def read_model(folder: Path) -> TrainedModel:
    """A model whose every file is as it was written.

    Raises ModelError: no model, a format of a newer gliofed, a missing or strange file, a file
    that was changed, weights that are not those of the network (names, shapes, dtypes, a value
    that is not finite), or markers that this version answers otherwise.
    """
    record = read_record(folder)
    digests = _table(record, "files", folder)
    _check_files(folder, digests)
    recipe = _recipe(record, folder)
    weights = _weights(folder / WEIGHTS)
    check_weights(weights, recipe, folder / WEIGHTS)
    there = CALIBRATIONS in digests
    calibrations = _calibrations(folder / CALIBRATIONS) if there else {}
    card = (folder / CARD).read_text(encoding="utf-8") if CARD in digests else ""
    return TrainedModel(model_id_of(record), recipe, weights, calibrations, card)


def read_record(folder: Path) -> Mapping[str, Any]:
    """What a model says of itself, unchecked but for its format. Raises ModelError."""
    path = folder / RECORD
    if not path.is_file():
        raise ModelError(
            f"{folder}: is no model (it has no {RECORD}); give the folder that a run wrote"
            + (
                ", or bring the old file up to date with `gliofed model upgrade`"
                if folder.suffix == ".safetensors"
                else ""
            )
        )
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST))
        version = found["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: is damaged ({error}); fetch the model again") from None
    if version != FORMAT:
        raise ModelError(
            f"{path}: has format {version!r}, this version of gliofed reads {FORMAT}; install "
            f"gliofed {found.get('model', {}).get('gliofed', 'of a later version')}"
        )
    record: Mapping[str, Any] = found
    return record


def model_id_of(record: Mapping[str, Any]) -> str:
    """The digest that names a model: of its record without its card."""
    files = {k: v for k, v in record["files"].items() if k != CARD}
    text = json.dumps({**record, "files": files}, sort_keys=True)
    return _sha256(text.encode())


def check_weights(weights: Mapping[str, Tensor], recipe: ModelRecipe, path: Path) -> None:
    """That they are the very parameters of the network that the recipe names, all finite.

    path: of the file that they are from. Raises ModelError.
    """
    try:
        own = build_net(recipe.net.preset, recipe.net.stem, seed=0).state_dict()
    except StudyError as error:
        raise ModelError(f"{path}: {error}") from None
    strange, lost = sorted(set(weights) - set(own)), sorted(set(own) - set(weights))
    if strange or lost:
        what = [f"{len(lost)} parameters are missing ({lost[0]} ...)"] if lost else []
        what += [f"{len(strange)} are not of the network ({strange[0]} ...)"] if strange else []
        raise ModelError(f"{path}: {'; '.join(what)}")
    for name, tensor in weights.items():
        like = own[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise ModelError(
                f"{path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, expected {like.dtype} "
                f"{tuple(like.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {name} has a value that is not finite")


def _record(recipe: ModelRecipe, files: Mapping[str, bytes]) -> dict[str, Any]:
    digests = {name: _sha256(data) for name, data in files.items()}
    return {"format": FORMAT, "model": dataclasses.asdict(recipe), "files": digests}


def _place(folder: Path, files: Mapping[str, bytes]) -> None:
    """The files as the folder, whole; an older folder goes once the new one is on the disk."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    old = part.with_suffix(".old")
    try:
        part.mkdir()
        for name, data in files.items():
            keep(part / name, data)
        keep_folder(part)
        if folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        keep_folder(folder.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Exactly the files of the record, each as it was written."""
    known = {WEIGHTS, CALIBRATIONS, CARD}
    there = {p.name for p in folder.iterdir()} - {RECORD}
    if WEIGHTS not in digests or not set(digests) <= known:
        raise ModelError(
            f"{folder / RECORD}: names the files {sorted(digests)}, expected "
            f"{WEIGHTS} and at most {CALIBRATIONS} and {CARD}"
        )
    if strange := sorted(there - set(digests)):
        raise ModelError(
            f"{folder / strange[0]}: is no part of the model; a model folder holds nothing else, "
            "move it away"
        )
    if lost := sorted(set(digests) - there):
        raise ModelError(f"{folder / lost[0]}: is missing; fetch the model again")
    for name, digest in digests.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise ModelError(
                f"{folder / name}: was changed since the model was written (its SHA-256 does not "
                "fit); fetch the model again"
            )


def _recipe(record: Mapping[str, Any], folder: Path) -> ModelRecipe:
    try:
        recipe = build(ModelRecipe, record.get("model"), str(folder / RECORD))
    except StudyError as error:
        raise ModelError(f"{error}; fetch the model again") from None
    if recipe.markers != CLASSES:
        raise ModelError(
            f"{folder / RECORD}: answers the markers {_words(recipe.markers)}, this version of "
            f"gliofed {_words(CLASSES)}; install gliofed {recipe.gliofed}"
        )
    return recipe


def _calibrations_json(calibrations: Mapping[int, Calibration]) -> str:
    plain = {
        str(missing): json.loads(
            calibration_json(dataclasses.replace(own, notes=dict.fromkeys(own.notes, "")))
        )
        for missing, own in sorted(calibrations.items())
    }
    return json.dumps(plain, indent=1, allow_nan=False)


def _calibrations(path: Path) -> dict[int, Calibration]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return {
            int(missing): parse_calibration(json.dumps(own), str(path))
            for missing, own in plain.items()
        }
    except (DataError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: is damaged ({error}); fetch the model again") from None


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: is no file of weights ({error}); fetch the model again"
        ) from None
    return found


def _table(record: Mapping[str, Any], key: str, folder: Path) -> Mapping[str, str]:
    found = record.get(key)
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ModelError(f"{folder / RECORD}: {key}: expected a table; fetch the model again")
    return found


def _words(markers: tuple[MarkerClasses, ...]) -> str:
    return ", ".join(f"{m.marker} ({', '.join(m.classes)})" for m in markers)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
