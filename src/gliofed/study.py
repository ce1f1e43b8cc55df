"""A study: all settings that affect its results, in one TOML file and one frozen value.

    study = load_study(Path("studies/tcga-lgg.toml"))
    study.train.epochs

An unknown key is an error that names the nearest valid key. A value of the wrong type is an error
that names the expected type. Paths are relative to the study file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from gliofed.errors import StudyError
from gliofed.federation_config import (
    OPERATIONAL,
    FederationConfig,
    federation_faults,
    summed_sites_faults,
)
from gliofed.fine_tuning_config import (
    InitConfig,
    Part,
    PersonalConfig,
    init_faults,
    personal_faults,
)
from gliofed.markers import MARKERS
from gliofed.models_config import models_faults
from gliofed.privacy_config import PrivacyConfig, privacy_faults
from gliofed.settings import build, read_toml, toml_of

Spacing = float | Literal["native"]
FEDERATED: Final = "federated"
POOLED: Final = "pooled"
ALONE: Final = "alone"
PERSONAL: Final = "personal"
PARENT: Final = "parent"
"""The networks of a study, by the names that `models` has."""
FUSION: Final = "fusion"
ModelKind = Literal[
    "federated",
    "pooled",
    "alone",
    "personal",
    "parent",
    "age_sex",
    "radiomics",
    "radiomics_combat",
    "fusion",
]
Pooling = Literal["max", "mask"]
BrainMaskSource = Literal["auto", "given", "stripped", "deepbet", "hd-bet"]


@dataclass(frozen=True)
class DataConfig:
    """Where the hospitals are. Each of `train` and `external` is a folder below `root`.

    holdout: fraction of each training site's patients held out for its own test row; a site with
    fewer than `holdout_from` cases holds out none.
    overlap: what to do with a patient found at two sites: "refuse" the study, or "drop" the case at
    all sites but one. The case stays at the external site, else at the first site in `train`.
    overlap_by: how such a patient is found: "id" compares normalised ids, "image" the scans.
    leave_one_out: sites to leave out in turn; each is tested with models trained on all other
    `train` sites. Takes the place of `external`.
    formats: site to the layout of its folder, a row of `gliofed.data.formats.registry.FORMATS`;
    "bids" by default. Where it names a set of several hospitals, "set/hospital" is a site too.
    features: tables for the models "radiomics" and "radiomics_combat".
    """

    root: Path
    train: tuple[str, ...]
    external: tuple[str, ...] = ()
    leave_one_out: tuple[str, ...] = ()
    holdout: float = 0.2
    holdout_from: int = 5
    overlap: Literal["refuse", "drop"] = "refuse"
    overlap_by: tuple[Literal["id", "image"], ...] = ("id", "image")
    synthetic: bool = False
    formats: Mapping[str, str] = field(default_factory=dict)
    features: tuple[Path, ...] = ()


@dataclass(frozen=True)
class GridConfig:
    """The voxel grid of the network's input.

    spacing_mm: voxel size along right, anterior and superior (RAS axes); "native" keeps that
    axis as scanned. patch: size of a training sample in voxels; a smaller brain is padded with 0.
    The defaults hold the whole brain in the space of MNI152, as predictions do.
    """

    spacing_mm: tuple[Spacing, Spacing, Spacing] = (2.0, 2.0, 2.0)
    patch: tuple[int, int, int] = (80, 96, 80)


@dataclass(frozen=True)
class PreparationConfig:
    """The preprocessing of a case's files. Every registration is linear.

    brain: the source of the brain mask. "given": the case's own mask; "stripped": the voxels that
    are not 0 in skull-stripped scans; "deepbet" and "hd-bet": a network ("hd-bet" needs its
    package). "auto" takes the first of "given", "stripped" and "deepbet" that is possible.
    register: align a case's sequences with its finest one (rigid). space: "mni152" (affine) or the
    scan's own, "scanner". bias: correct the intensities for the bias field (N4).
    """

    brain: BrainMaskSource = "auto"
    register: bool = True
    space: Literal["mni152", "scanner"] = "mni152"
    bias: bool = True


@dataclass(frozen=True)
class QualityConfig:
    """Quality limits of a prepared case. A case beyond one is excluded from training and tests.

    brain_litres: smallest and largest volume of the brain mask. template_dice: smallest Dice of the
    brain mask with that of MNI152, for cases registered to it. alignment: smallest ratio of
    each sequence's mutual information with the reference to that after a shift by 6 mm
    (`gliofed.preprocessing.alignment`); 0 turns this limit off.
    """

    brain_litres: tuple[float, float] = (0.8, 2.2)
    template_dice: float = 0.85
    alignment: float = 1.6


@dataclass(frozen=True)
class NetworkConfig:
    """preset: a row of `gliofed.models.presets.PRESETS`. stem: the stride of the first convolution
    along each axis, in place of the preset's own ("parent" has a fixed one). For thick slices, use
    1 along their axis. pooling: how the markers' heads read the features, in place of the preset's
    own: the largest value of each channel in the whole image ("max"), or also their mean, largest
    value and spread inside the predicted mask ("mask")."""

    preset: str = "small"
    stem: tuple[int, int, int] | None = None
    pooling: Pooling | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, sampling and augmentation.

    epochs: passes over all training cases, of every model. batch: cases a step, of all sites
    together. warmup: fraction of all steps during which the learning rate rises. clip: largest
    gradient norm.
    drop_sequence: probability that a scanned sequence is dropped from a sample; one always stays.
    lesion: probability that a sample is centred in the tumour's bounding box rather than anywhere
    in the brain. augment: strength of augmentation, 0 none, 1 full.
    """

    epochs: int = 30
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip: float = 5.0
    drop_sequence: float = 0.1
    lesion: float = 0.8
    augment: float = 1.0


@dataclass(frozen=True)
class LossConfig:
    """Factors of the training loss, one a task (0 leaves the task out of training).

    Defaults for the markers are those of the marker table.
    """

    mask: float = 1.0
    markers: Mapping[str, float] = field(
        default_factory=lambda: {m.id: m.task_weight for m in MARKERS}
    )
    label_smoothing: float = 0.0

    @property
    def unused(self) -> tuple[str, ...]:
        """The markers of weight 0."""
        return tuple(m.id for m in MARKERS if self.markers.get(m.id, 0) <= 0)


@dataclass(frozen=True)
class ScoreConfig:
    """bootstrap: replicates of each 95 % interval. mirror: average the prediction with that of
    the left-right mirrored scan."""

    bootstrap: int = 2000
    mirror: bool = True


@dataclass(frozen=True)
class CalibrationConfig:
    """Targets of the calibration, fixed before any case is seen.

    kind: of scaling. alpha: how often a prediction set may miss the true class; by_class: within
    each class. risk: target error rate of the predictions that are confident enough to be given.
    least: the probability below which no integrated type is named.
    """

    kind: Literal["temperature", "platt"] = "platt"
    alpha: float = 0.1
    by_class: bool = True
    risk: float = 0.1
    least: float = 0.8


@dataclass(frozen=True)
class Study:
    """A whole study. Studies of equal `digest` have equal settings except `OPERATIONAL` ones.

    init: None where training begins with random weights. personal: used with the model "personal".
    privacy: None where gradients leave as they are.
    """

    name: str
    data: DataConfig
    seeds: tuple[int, ...] = (1,)
    models: tuple[ModelKind, ...] = ("federated", "pooled", "alone")
    grid: GridConfig = field(default_factory=GridConfig)
    prepare: PreparationConfig = field(default_factory=PreparationConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    net: NetworkConfig = field(default_factory=NetworkConfig)
    init: InitConfig | None = None
    train: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    privacy: PrivacyConfig | None = None
    personal: PersonalConfig = field(default_factory=PersonalConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings as canonical JSON.

        Without paths, with default operational settings, and without `init`, `privacy`, `personal`,
        `federation.validates` and `federation.privacy` where these are not used.
        """
        plain = dataclasses.asdict(with_default_operations(self))
        del plain["data"]["root"], plain["data"]["features"]
        if self.init is not None:
            del plain["init"]["model"]
        for name in ("init", "privacy"):
            if plain[name] is None:
                del plain[name]
        if PERSONAL not in self.models:
            del plain["personal"]
        if self.federation.validates is None:
            del plain["federation"]["validates"]
        if self.federation.privacy == "none":
            del plain["federation"]["privacy"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def optimisation(self) -> TrainingConfig:
        """`train`, with the learning rate of `init` where that has one."""
        if self.init is None or self.init.lr is None:
            return self.train
        return dataclasses.replace(self.train, lr=self.init.lr)

    @property
    def frozen(self) -> tuple[Part, ...]:
        """The parts of the network that are not trained."""
        return () if self.init is None else self.init.frozen


def with_default_operations(study: Study) -> Study:
    """The study with the default of each setting in `OPERATIONAL`."""
    plain = {name: getattr(FederationConfig(), name) for name in OPERATIONAL}
    federation = dataclasses.replace(study.federation, **plain)
    return dataclasses.replace(study, federation=federation)


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises StudyError: no such file, invalid TOML, an unknown key (with the nearest valid one), a
    missing key, a value of the wrong type, or settings that contradict each other.
    """
    study = parse_study(read_toml(path, "study"), where=str(path))
    root = (path.parent / study.data.root).resolve()
    features = tuple((path.parent / f).resolve() for f in study.data.features)
    data = dataclasses.replace(study.data, root=root, features=features)
    init = study.init
    if init is not None and init.model is not None:
        init = dataclasses.replace(init, model=(path.parent / init.model).resolve())
    return dataclasses.replace(study, data=data, init=init)


def parse_study(raw: Mapping[str, Any], where: str = "study") -> Study:
    """A checked `Study` from plain TOML values; `where` opens each error message."""
    study = build(Study, raw, where)
    _check(study, where)
    return study


def study_toml(study: Study) -> str:
    """The study as TOML with every default written out, ready for `load_study`."""
    return toml_of(dataclasses.asdict(study))


def _personal_faults(study: Study) -> tuple[tuple[bool, str], ...]:
    if PERSONAL not in study.models:
        return ()
    return personal_faults(study.personal, FEDERATED in study.models, study.net.preset)


def _check(study: Study, where: str) -> None:
    """Raise StudyError for settings that are out of range or contradict each other."""
    data, train = study.data, study.train
    in_both = sorted(set(data.train) & set(data.external))
    not_trained = sorted(set(data.leave_one_out) - set(data.train))
    named = {s for site in (*data.train, *data.external) for s in (site, site.rpartition("/")[0])}
    unnamed = sorted(set(data.formats) - named)
    faults = (
        (
            not data.train and not study.federation.validates,
            "data.train: name at least one hospital",
        ),
        (
            bool(data.train and study.federation.validates),
            "federation.validates: nothing is trained; name all hospitals under data.external",
        ),
        (
            bool(study.init and study.federation.validates),
            "federation.validates: nothing is trained; leave out [init]",
        ),
        (bool(in_both), f"data: {in_both} are in both train and external"),
        (bool(not_trained), f"data.leave_one_out: {not_trained} are not in data.train"),
        (bool(unnamed), f"data.formats: {unnamed} are in neither data.train nor data.external"),
        (
            bool(data.leave_one_out) and bool(data.external),
            "data: give external or leave_one_out, not both",
        ),
        (
            not (data.leave_one_out or data.external),
            "data: give external hospitals, or leave_one_out",
        ),
        (
            not data.overlap_by or len(set(data.overlap_by)) < len(data.overlap_by),
            'data.overlap_by: give "id", "image" or both, each once',
        ),
        (not 0 <= data.holdout < 1, "data.holdout: expected at least 0 and below 1"),
        (
            min(train.epochs, train.batch) < 1,
            "train: epochs and batch must be at least 1",
        ),
        (train.lr <= 0 or train.clip <= 0, "train: lr and clip must be above 0"),
        (not 0 <= train.drop_sequence < 1, "train.drop_sequence: at least 0 and below 1"),
        (
            any(s != "native" and s <= 0 for s in study.grid.spacing_mm),
            "grid.spacing_mm: every spacing must be above 0 mm",
        ),
        (min(study.grid.patch) < 16, "grid.patch: every side must be at least 16 voxels"),
        (
            not 0 <= study.quality.brain_litres[0] < study.quality.brain_litres[1],
            "quality.brain_litres: give the least and the greatest volume, in litres",
        ),
        (not 0 <= study.quality.template_dice < 1, "quality.template_dice: at least 0 and below 1"),
        (study.quality.alignment < 0, "quality.alignment: at least 0 (0 turns it off)"),
        (
            study.prepare.space == "mni152" and "native" in study.grid.spacing_mm,
            'grid.spacing_mm: "native" needs prepare.space = "scanner"',
        ),
        *models_faults(
            study.models, study.net.preset, bool(data.features), study.privacy is not None
        ),
        (not study.seeds, "seeds: give at least one"),
        (len(set(study.seeds)) < len(study.seeds), "seeds: each must differ"),
        (study.score.bootstrap < 100, "score.bootstrap: at least 100 replicates"),
        (not 0 < study.calibration.alpha < 1, "calibration.alpha: above 0 and below 1"),
        (not 0 <= study.calibration.risk < 1, "calibration.risk: at least 0 and below 1"),
        (not 0 <= study.calibration.least <= 1, "calibration.least: from 0 to 1"),
        (study.federation.quorum < 1, "federation.quorum: at least 1"),
        *federation_faults(study.federation),
        *summed_sites_faults(
            study.federation, len(data.train) - bool(data.leave_one_out), len(data.train)
        ),
        *privacy_faults(study.privacy, study.federation, train.batch),
        *init_faults(study.init, study.loss.markers),
        *_personal_faults(study),
    )
    for fault, message in faults:
        if fault:
            raise StudyError(f"{where}: {message}")
