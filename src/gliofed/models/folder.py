"""A trained model as a folder: weights, recipe, calibration and card, all checked; no pickle.

    <folder>/model.json            format, recipe, and the SHA-256 of each other file
    <folder>/weights.safetensors   tensors by parameter name
    <folder>/weights-2.safetensors, ...   of the further networks of an ensemble
    <folder>/calibrations.json     if the model was calibrated
    <folder>/fusion.json           if age and sex are joined to its markers
    <folder>/model-card.md         intended use, training and test results

`model.json` is written last, and the folder is moved to its place in one step. The id of a model is
the digest of its recipe, weights and calibration; a new card does not change it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from gliofed.calibration.calibrator import Calibration, fitted_for
from gliofed.calibration.files import calibrations_from, calibrations_plain
from gliofed.calibration.fusion import Fusion
from gliofed.calibration.fusion_file import fusion_json, parse_fusion
from gliofed.data.store import RECIPE
from gliofed.errors import DataError, ModelError, StudyError
from gliofed.models.ensemble import Ensemble, Network
from gliofed.models.network import MultiTaskNet, build_net, untrained_sequences
from gliofed.models.recipe import CLASSES, MarkerClasses, ModelRecipe, with_global_maxima
from gliofed.models.weights import (
    WEIGHTS,
    check_weights,
    pack_weights,
    read_weights,
    weights_file,
    weights_files,
)
from gliofed.runtime.files import keep, keep_folder
from gliofed.settings import build
from gliofed.study import Study
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Mri
from gliofed.version import __version__

FORMAT: Final = 3
"""Version of the folder format. Version 1 was the weights alone, as one message of
`gliofed.federated.messages`. Version 2 has no `net.pooling`: the heads read global maxima."""
FORMAT_WITH_FUSION: Final = 4
"""Version of a folder with a fusion, which a gliofed that knows none must not read."""
_READ: Final = (2, FORMAT, FORMAT_WITH_FUSION)
RECORD: Final = "model.json"
CALIBRATIONS: Final = "calibrations.json"
FUSION: Final = "fusion.json"
CARD: Final = "model-card.md"
_LARGEST: Final = 2**20
"""Largest record in bytes: it is read before its digest can be checked."""


@dataclass(frozen=True)
class TrainedModel:
    """A model read from a folder. id: hexadecimal digest. members: the weights of each network, on
    the CPU; more than one are an ensemble. card: Markdown, or empty.

    calibrations: by the largest number of missing sequences of the cases that each was fitted on;
    may be empty. fusion: how age and sex are joined to the network's markers; None if they are not.
    """

    id: str
    recipe: ModelRecipe
    members: tuple[Mapping[str, Tensor], ...]
    calibrations: Mapping[int, Calibration]
    card: str
    fusion: Fusion | None = None

    def fitted_for(self, missing: int) -> int | None:
        """`fitted_for` of the calibrations of the network's own probabilities."""
        return fitted_for(self.calibrations, missing)

    @property
    def untrained_sequences(self) -> tuple[Mri, ...]:
        """The sequences that no training case had, as far as the weights tell; of an ensemble,
        those that are so for every network."""
        each = [untrained_sequences(weights["presence.weight"]) for weights in self.members]
        return tuple(s for s in SEQUENCES if all(s in unknown for unknown in each))

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights of a model of one network. Raises ModelError for an ensemble."""
        if len(self.members) > 1:
            raise ModelError(
                f"model {self.id[:12]} is an ensemble of {len(self.members)} networks; this needs "
                "one network: give one of the models that it was made of"
            )
        return self.members[0]

    def net(self) -> MultiTaskNet:
        """The network of a model of one, in evaluation mode. Raises ModelError for an ensemble."""
        return self._net(self.weights)

    def network(self) -> Network:
        """The network or the ensemble, in evaluation mode."""
        if len(self.members) == 1:
            return self.net()
        return Ensemble(map(self._net, self.members)).eval()

    def _net(self, weights: Mapping[str, Tensor]) -> MultiTaskNet:
        net = build_net(self.recipe.net, seed=0)
        net.load_state_dict(dict(weights))
        return net.eval()


def write_model(
    folder: Path,
    recipe: ModelRecipe,
    weights: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    calibrations: Mapping[int, Calibration],
    card: Callable[[str], str],
) -> str:
    """Write the folder in one step, replacing an older one; return the model's id.

    weights: several are an ensemble. They may be rounded to bfloat16, for half the size; they are
    read as float32. card: from the id to the card's text; empty for none. Notes of calibrations,
    which name sites, are left out. Equal inputs give equal bytes. Raises ModelError if `folder`
    exists and is not a model, OSError if it cannot be written; the old folder then stays.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise ModelError(f"{folder}: exists and is not a model; choose another name")
    members = (weights,) if isinstance(weights, Mapping) else weights
    files = {weights_file(n): pack_weights(member) for n, member in enumerate(members)}
    if calibrations:
        plain = calibrations_plain(calibrations)
        files[CALIBRATIONS] = json.dumps(plain, indent=1, allow_nan=False).encode()
    id_ = model_id_of(_record(recipe, files))
    if text := card(id_):
        files[CARD] = text.encode()
    record = json.dumps(_record(recipe, files), indent=1, ensure_ascii=False)
    _place(folder, {**files, RECORD: record.encode()})
    return id_


def add_fusion(folder: Path, fusion: Fusion, card: Callable[[str], str] | None = None) -> str:
    """Add or replace the fusion of a model in one step; return the new id. card: as of
    `write_model`; None for that of the model. Raises ModelError as `read_model` does, OSError; the
    folder is then as before."""
    recipe, files = read_model(folder).recipe, model_files(folder)[1]
    del files[RECORD]
    files[FUSION] = fusion_json(fusion).encode()
    if card is not None:
        files[CARD] = card(model_id_of(_record(recipe, files))).encode()
    record = _record(recipe, files)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    _place(folder, {**files, RECORD: text.encode()})
    return model_id_of(record)


def known_files(names: Collection[str]) -> frozenset[str]:
    """The files that a model with `names` may have, beside its record."""
    return frozenset({*weights_files(names), WEIGHTS, CALIBRATIONS, FUSION, CARD})


def model_files(folder: Path) -> tuple[str, dict[str, bytes]]:
    """The id of a model, and its files by name. Raises ModelError as `read_model` does."""
    id_, digests = read_model(folder).id, _table(read_record(folder), "files", folder)
    return id_, {name: (folder / name).read_bytes() for name in (*digests, RECORD)}


def place_model(
    folder: Path,
    files: Mapping[str, bytes],
    check: Callable[[TrainedModel], None] = lambda model: None,
) -> TrainedModel:
    """Write the files of a model that came from elsewhere, in one step; return the model.

    check: may raise an error to refuse it. Raises ModelError as `read_model`, for a file of another
    name, and where `folder` exists and is not a model. A model in `folder` is replaced only by one
    that passed every check.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise ModelError(f"{folder}: exists and is not a model; choose another name")
    if unknown := sorted(set(files) - {RECORD, *known_files(files)}):
        raise ModelError(f"{folder}: a model has no file {unknown[0]!r}; nothing was written")
    read: list[TrainedModel] = []

    def check_part(part: Path) -> None:
        read.append(read_model(part))
        check(read[0])

    _place(folder, files, check_part)
    return read[0]


def recipe_of(
    study: Study, run: str, rounds: int, untrained: tuple[str, ...] = (), caution: str = ""
) -> ModelRecipe:
    """The recipe of a model trained in a study, all but the markers `untrained`; names no site."""
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
        untrained=untrained,
        caution=caution,
        base=study.init.digest if study.init else "",
    )


def read_model(folder: Path) -> TrainedModel:
    """Read a model and check that every file is unchanged.

    Raises ModelError: no model, a format of a newer gliofed, a missing or unexpected file, a file
    that was changed, weights that do not fit the network (names, shapes, dtypes, a value
    that is not finite), or markers other than those of this version.
    """
    record = read_record(folder)
    digests = _table(record, "files", folder)
    _check_files(folder, digests)
    recipe = _recipe(record, folder)
    members = []
    for name in weights_files(digests):
        weights = read_weights(folder / name)
        check_weights(weights, recipe.net, folder / name)
        members.append(weights)
    calibrated = CALIBRATIONS in digests
    calibrations = _calibrations(folder / CALIBRATIONS) if calibrated else {}
    card = (folder / CARD).read_text(encoding="utf-8") if CARD in digests else ""
    fusion = _fusion(folder / FUSION) if FUSION in digests else None
    return TrainedModel(model_id_of(record), recipe, tuple(members), calibrations, card, fusion)


def check_steps(model: TrainedModel) -> None:
    """Raise ModelError where this version prepares cases by other steps than the model's."""
    if model.recipe.steps != RECIPE:
        raise ModelError(
            f"model {model.id[:12]}: its cases were prepared by the steps {model.recipe.steps!r}, "
            f"this version of gliofed uses {RECIPE!r}; install gliofed {model.recipe.gliofed}"
        )


def _suggestion(folder: Path) -> str:
    """What to give instead of a path that is no model."""
    below = sorted(p.parent for n in range(1, 4) for p in folder.glob("*/" * n + RECORD))
    if below:
        more = f" or another of {len(below)} below it" if len(below) > 1 else ""
        return f"give {below[0]}{more}"
    give = "give the folder that a run wrote"
    if folder.suffix == ".safetensors":
        return f"{give}, or convert the old file with `gliofed model upgrade`"
    return give


def read_record(folder: Path) -> Mapping[str, Any]:
    """The record of a model; only its format is checked. Raises ModelError."""
    path = folder / RECORD
    if not path.is_file():
        raise ModelError(f"{folder}: is not a model (it has no {RECORD}); {_suggestion(folder)}")
    try:
        with path.open("rb") as file:
            contents = json.loads(file.read(_LARGEST))
        version = contents["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: is damaged ({error}); fetch the model again") from None
    if version not in _READ:
        raise ModelError(
            f"{path}: has format {version!r}, this version of gliofed reads up to {_READ[-1]}; "
            f"install gliofed {contents.get('model', {}).get('gliofed', 'of a later version')}"
        )
    record: Mapping[str, Any] = contents
    return record


def model_id_of(record: Mapping[str, Any]) -> str:
    """The model id: digest of its record without the card."""
    files = {k: v for k, v in record["files"].items() if k != CARD}
    text = json.dumps({**record, "files": files}, sort_keys=True)
    return _sha256(text.encode())


def _record(recipe: ModelRecipe, files: Mapping[str, bytes]) -> dict[str, Any]:
    digests = {name: _sha256(data) for name, data in files.items()}
    version = FORMAT_WITH_FUSION if FUSION in files else FORMAT
    return {"format": version, "model": dataclasses.asdict(recipe), "files": digests}


def _place(
    folder: Path, files: Mapping[str, bytes], check: Callable[[Path], None] = lambda part: None
) -> None:
    """Write the files as one folder; an older folder is removed once the new one is on the disk.

    check: called with the new folder before that.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    old = part.with_suffix(".old")
    try:
        part.mkdir()
        for name, data in files.items():
            keep(part / name, data)
        keep_folder(part)
        check(part)
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
    """Read exactly the files of the record and check their digests."""
    present = {p.name for p in folder.iterdir()} - {RECORD}
    if WEIGHTS not in digests or not set(digests) <= known_files(digests):
        raise ModelError(
            f"{folder / RECORD}: names the files {sorted(digests)}, expected "
            f"{WEIGHTS} and at most {CALIBRATIONS}, {FUSION} and {CARD}"
        )
    if unknown := sorted(present - set(digests)):
        raise ModelError(
            f"{folder / unknown[0]}: is not part of the model; a model folder holds no other file, "
            "move it away"
        )
    if missing := sorted(set(digests) - present):
        raise ModelError(f"{folder / missing[0]}: is missing; fetch the model again")
    for name, digest in digests.items():
        with (folder / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != digest:
            raise ModelError(
                f"{folder / name}: was changed since the model was written (its SHA-256 does not "
                "fit); fetch the model again"
            )


def _recipe(record: Mapping[str, Any], folder: Path) -> ModelRecipe:
    try:
        recipe = build(ModelRecipe, record.get("model"), str(folder / RECORD))
    except StudyError as error:
        raise ModelError(f"{error}; fetch the model again") from None
    if record["format"] == 2:
        recipe = with_global_maxima(recipe)
    if recipe.markers != CLASSES:
        raise ModelError(
            f"{folder / RECORD}: predicts the markers {_words(recipe.markers)}, this version of "
            f"gliofed {_words(CLASSES)}; install gliofed {recipe.gliofed}"
        )
    if unknown := sorted(set(recipe.untrained) - {m.marker for m in CLASSES}):
        raise ModelError(f"{folder / RECORD}: {unknown[0]!r} is no marker; fetch the model again")
    return recipe


def _calibrations(path: Path) -> dict[int, Calibration]:
    try:
        return calibrations_from(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (DataError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: is damaged ({error}); fetch the model again") from None


def _fusion(path: Path) -> Fusion:
    try:
        return parse_fusion(path.read_text(encoding="utf-8"), str(path))
    except (DataError, ValueError) as error:
        raise ModelError(str(error)) from None


def _table(record: Mapping[str, Any], key: str, folder: Path) -> Mapping[str, str]:
    table = record.get(key)
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise ModelError(f"{folder / RECORD}: {key}: expected a table; fetch the model again")
    return table


def _words(markers: tuple[MarkerClasses, ...]) -> str:
    return ", ".join(f"{m.marker} ({', '.join(m.classes)})" for m in markers)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
