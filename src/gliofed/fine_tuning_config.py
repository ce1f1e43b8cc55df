"""The settings of fine-tuning in a study, `[init]` and `[personal]`, and their faults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gliofed.markers import BY_ID

Part = Literal["encoder", "decoder", "heads"]
"""A part of the network. "encoder": the way down, with the code of present sequences. "decoder":
the way up. "heads": the layers of single tasks: the mask's output layer and the markers' heads."""
PersonalParts = Literal["all", "heads", "norm_and_heads"]


@dataclass(frozen=True)
class InitConfig:
    """A model whose weights are those before the first round.

    digest: the id of the model. model: its folder; None where the study is away from it, as at a
    site. origin: where the model comes from, in words, for who approves the study. lr: the learning
    rate, in place of `train.lr`. frozen: parts that are not trained. fresh: markers whose heads
    begin with random weights, beside those that the model was not trained for.
    """

    digest: str
    model: Path | None = None
    origin: str = ""
    lr: float | None = None
    frozen: tuple[Part, ...] = ()
    fresh: tuple[str, ...] = ()

    @property
    def without_folder(self) -> InitConfig:
        """The same, as it is sent to other machines."""
        return replace(self, model=None)

    @property
    def summary(self) -> str:
        """The model and what is done with it, in some words."""
        frozen = f"; frozen: {', '.join(self.frozen)}" if self.frozen else ""
        fresh = f"; new heads: {', '.join(self.fresh)}" if self.fresh else ""
        return f"model {self.digest}{frozen}{fresh}"


@dataclass(frozen=True)
class PersonalConfig:
    """How each training site fine-tunes the final federated model on its own training cases.

    epochs: passes over them. lr: the learning rate. parts: what is trained. "heads" are the layers
    of single tasks, as FedRep has for each site (Collins et al. 2021, ICML); "norm_and_heads" are
    also the normalisations, as FedBN has (Li et al. 2021, ICLR). Both keep them apart from the
    first round on; here they are shared until the last one.
    """

    epochs: int = 5
    lr: float = 1e-4
    parts: PersonalParts = "all"


def personal_faults(
    personal: PersonalConfig, federates: bool, preset: str
) -> tuple[tuple[bool, str], ...]:
    """Whether each rule is broken, and the message that says so.

    federates: whether the study trains the federated model. preset: of the network.
    """
    return (
        (
            not federates,
            'models: "personal" fine-tunes the federated model; name "federated" too',
        ),
        (personal.epochs < 1, "personal.epochs: at least 1"),
        (personal.lr <= 0, "personal.lr: above 0"),
        (
            personal.parts == "norm_and_heads" and preset == "parent",
            'personal.parts: preset "parent" has no normalisation; give "heads" or "all"',
        ),
    )


def init_faults(
    init: InitConfig | None, weights: Mapping[str, float]
) -> tuple[tuple[bool, str], ...]:
    """Whether each rule is broken, and the message that says so. weights: of the markers' losses.

    The model's folder is not opened.
    """
    if init is None:
        return ()
    unknown = sorted(set(init.fresh) - set(BY_ID))
    near = difflib.get_close_matches(unknown[0], BY_ID, n=1, cutoff=0.0) if unknown else [""]
    return (
        (
            not re.fullmatch(r"[0-9a-f]{64}", init.digest),
            "init.digest: the id of the model, 64 hexadecimal digits; gliofed model show FOLDER "
            "prints it",
        ),
        (init.lr is not None and init.lr <= 0, "init.lr: above 0"),
        (
            len(set(init.frozen)) == 3,
            "init.frozen: nothing is left to train; remove a part",
        ),
        (
            bool(unknown),
            f"init.fresh: unknown marker {unknown[:1]}; the nearest one is {near[0]!r}",
        ),
        (
            frozen_fresh_heads(init, init.fresh, weights) != (),
            'init: heads that begin with random weights cannot be frozen; remove "heads" from '
            "init.frozen, or the markers from init.fresh",
        ),
    )


def frozen_fresh_heads(
    init: InitConfig, fresh: tuple[str, ...], weights: Mapping[str, float]
) -> tuple[str, ...]:
    """The markers of `fresh` that the loss trains while heads are frozen."""
    if "heads" not in init.frozen:
        return ()
    return tuple(m for m in fresh if weights.get(m, 0) > 0)
