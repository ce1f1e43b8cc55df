"""The weights of a network before its first step: random, or those of the model in `[init]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from gliofed.errors import ModelError, StudyError
from gliofed.fine_tuning_config import InitConfig, frozen_fresh_heads
from gliofed.models.folder import TrainedModel, check_steps, read_model
from gliofed.models.network import build_net, spec_of, task_of
from gliofed.study import NetworkConfig, Study

_SHOW: Final = "gliofed model show FOLDER prints the id of a model"


def initial_weights(study: Study, seed: int) -> Mapping[str, Tensor]:
    """The weights before the first step. Raises as `read_base` does.

    seed: of random weights, which are all of a study without `init`, else its fresh heads.
    """
    random = build_net(study.net, seed).state_dict()
    base = read_base(study)
    if base is None or study.init is None:
        return random
    fresh = _fresh(study.init, base)
    return {name: t if task_of(name) in fresh else base.weights[name] for name, t in random.items()}


def read_base(study: Study) -> TrainedModel | None:
    """The model that the study starts from, checked to fit it; None where it starts from none.

    Raises ModelError: no model in the folder, or one that `read_model` refuses; StudyError: no
    folder given, a model of another id, or settings of the study that do not fit the model.
    """
    init = study.init
    if init is None:
        return None
    if init.model is None:
        raise StudyError(f"init.model: is missing; give the folder of model {init.digest[:12]}")
    try:
        base = read_model(init.model)
    except ModelError as error:
        raise ModelError(f"init.model: {error}") from None
    if base.id != init.digest:
        raise StudyError(
            f"init.digest: the study starts from model {init.digest}, and {init.model} holds model "
            f"{base.id}; give the folder of the first, or the digest of the second ({_SHOW})"
        )
    if len(base.members) > 1:
        raise StudyError(
            f"init.model: {init.model} is an ensemble of {len(base.members)} networks; start from "
            "one of the models that it was made of"
        )
    check_steps(base)
    if differences := _differences(study, base):
        raise StudyError(
            f"the study does not fit model {base.id[:12]}, which it starts from: "
            f"{'; '.join(differences)}; change the study, or start from another model"
        )
    if frozen := frozen_fresh_heads(init, _fresh(init, base), study.loss.markers):
        raise StudyError(
            f"init.frozen: the heads are frozen, and model {base.id[:12]} was not trained for "
            f'{frozen[0]}, whose head begins with random weights; remove "heads", or set '
            f"loss.markers.{frozen[0]} = 0"
        )
    return base


def inherited_caution(study: Study) -> str:
    """What users of the study's model must see of the one that it starts from; mostly empty. Raises
    as `read_base` does."""
    base = read_base(study)
    if base is None or not base.recipe.caution:
        return ""
    return f"Training began with model {base.id[:12]}, which states: {base.recipe.caution}"


def _fresh(init: InitConfig, base: TrainedModel) -> tuple[str, ...]:
    """The markers whose heads begin with random weights."""
    return tuple(dict.fromkeys((*init.fresh, *base.recipe.untrained)))


def _differences(study: Study, base: TrainedModel) -> list[str]:
    """Each setting of the study that does not fit the model, with both values."""
    own, its = _settings(study.net), _settings(base.recipe.net)
    own |= {"grid.spacing_mm": study.grid.spacing_mm}
    its |= {"grid.spacing_mm": base.recipe.grid.spacing_mm}
    for field in dataclasses.fields(study.prepare):
        own[f"prepare.{field.name}"] = getattr(study.prepare, field.name)
        its[f"prepare.{field.name}"] = getattr(base.recipe.prepare, field.name)
    return [
        f"{key} is {_text(value)}, in the model {_text(its[key])}"
        for key, value in own.items()
        if value != its[key]
    ]


def _settings(net: NetworkConfig) -> dict[str, object]:
    """The settings of a network, with those of its preset where it has no own."""
    spec = spec_of(net)
    return {"net.preset": net.preset, "net.stem": spec.stem_stride, "net.pooling": spec.pooling}


def _text(value: object) -> str:
    """A value as a study file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
