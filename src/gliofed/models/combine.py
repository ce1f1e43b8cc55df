"""Several model folders combined into one: an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gliofed.calibration.fusion import network_alone_text
from gliofed.errors import ModelError
from gliofed.models.folder import TrainedModel, read_model, write_model
from gliofed.models.recipe import ModelRecipe

EQUAL: Final = ("steps", "net", "grid", "prepare", "quality", "mirror")
"""What the models of an ensemble must have in common: each case is prepared once for all."""


def combine_models(folders: Sequence[Path], out: Path) -> str:
    """Write an ensemble of the models as one folder; return its id.

    It predicts the mean of their probabilities. It has no calibration: those of the models were
    fitted to single ones, and on cases that others of them may have trained on. For the same reason
    it has no fusion with age and sex. A marker that one
    of them was not trained for is left out. Raises ModelError: fewer than two models, the same
    twice, or models that prepare or predict differently; OSError.
    """
    models = [read_model(folder) for folder in folders]
    _check_apart(models, folders)
    for model, folder in zip(models[1:], folders[1:], strict=True):
        _check_alike(models[0].recipe, model.recipe, (folders[0], folder))
    ids = [m.id for m in models]
    recipe = replace(
        models[0].recipe,
        run=hashlib.sha256("".join(ids).encode()).hexdigest()[:24],
        rounds=max(m.recipe.rounds for m in models),
        synthetic=any(m.recipe.synthetic for m in models),
        untrained=tuple(dict.fromkeys(t for m in models for t in m.recipe.untrained)),
        caution=" ".join(dict.fromkeys(m.recipe.caution for m in models if m.recipe.caution)),
    )
    members = [weights for m in models for weights in m.members]
    alone = next((t for m in models if (t := network_alone_text(m.fusion))), "")
    listed = "\n".join(f"- `{id_}`" for id_ in ids)
    card = (
        f"# {recipe.name}: an ensemble of {len(members)} networks\n\nThe mean of the probabilities "
        f"of these models, whose own cards say how they were trained and tested:\n\n{listed}\n\n"
        f"It is not calibrated. {alone}Research use only. Not a medical device.\n"
    )
    return write_model(out, recipe, members, {}, lambda _: card)


def _check_apart(models: Sequence[TrainedModel], folders: Sequence[Path]) -> None:
    if len(models) < 2:
        raise ModelError("an ensemble needs at least two models; give their folders")
    seen: dict[str, Path] = {}
    for model, folder in zip(models, folders, strict=True):
        if model.id in seen:
            raise ModelError(f"{seen[model.id]} and {folder} are the same model; give it once")
        seen[model.id] = folder


def _check_alike(first: ModelRecipe, other: ModelRecipe, folders: tuple[Path, Path]) -> None:
    for name in EQUAL:
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise ModelError(
                f"{folders[0]} and {folders[1]} differ in {name} ({one} and {two}); an ensemble "
                "prepares and predicts a case in one way: combine models of one study"
            )
