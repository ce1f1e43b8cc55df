"""A study: everything that decides a result, in one TOML file and one frozen value.

    study = load_study(Path("studies/tcga-lgg.toml"))
    study.train.rounds

Unknown keys are refused with the nearest valid one named; a value of another kind is refused with
the kind expected. Paths in `[data]` are relative to the study file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gliofed.errors import StudyError
from gliofed.markers import MARKERS
from gliofed.settings import build, read_toml, toml_of

Spacing = float | Literal["native"]
Kind = Literal["federated", "pooled", "alone", "parent", "age_sex", "radiomics", "radiomics_combat"]
BrainWay = Literal["auto", "given", "stripped", "deepbet", "hd-bet"]


@dataclass(frozen=True)
class DataConfig:
    """Where the hospitals are. Each of `train` and `external` is a folder below `root`.

    holdout: fraction of each training site's patients kept for its own test row (a site with
    fewer than `holdout_from` cases keeps none). overlap: what to do with a patient found at two
    sites: "refuse" the study, or "drop" the case from training (external test wins, then the
    first site in `train`). overlap_by: how such a patient is found: by the id in normal form, by
    the scans; "id" alone compares no images, and "image" alone trusts no id.
    leave_one_out: sites to hold out in turn, each tested by models trained on all other `train`
    sites; takes the place of `external`.
    formats: site to the layout its folder has, a row of `gliofed.data.formats.registry.FORMATS`; "bids"
    where it is not named. Where it names a set of several hospitals, "set/hospital" is a site too.
    features: tables that the models "radiomics" and "radiomics_combat" read, relative too.
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
    """The voxels that the network sees.

    spacing_mm: voxel size along right, anterior and superior (RAS axes); "native" keeps that
    axis as scanned. patch: voxels a training sample has; a smaller brain is padded with 0.
    """

    spacing_mm: tuple[Spacing, Spacing, Spacing] = (1.0, 1.0, 1.0)
    patch: tuple[int, int, int] = (96, 96, 96)


@dataclass(frozen=True)
class PreparationConfig:
    """The steps between a case's files and the network's space, each linear.

    brain: where the brain is. "auto": the case's own brain mask, else the voxels that are not 0
    where the scans are skull-stripped already, else "deepbet"; "given", "stripped" and "deepbet"
    are one of these for every case, "hd-bet" needs its package. register: lay a case's sequences
    on its finest one (rigid). space: "mni152" (affine) or the scan's own, "scanner". bias: correct
    the intensities for slow changes across the field of view (N4).
    """

    brain: BrainWay = "auto"
    register: bool = True
    space: Literal["mni152", "scanner"] = "mni152"
    bias: bool = True


@dataclass(frozen=True)
class QualityConfig:
    """What a prepared case must reach; one that does not is set aside, neither trained nor tested.

    brain_litres: least and greatest volume of the brain mask. template_dice: least overlap of the
    brain with that of MNI152, where cases are registered to it. alignment: how
    many times more each sequence tells of the reference where it lies than 6 mm away, at least;
    0 asks for none.
    """

    brain_litres: tuple[float, float] = (0.8, 2.2)
    template_dice: float = 0.85
    alignment: float = 1.6


@dataclass(frozen=True)
class NetworkConfig:
    """preset: a row of `gliofed.models.presets.PRESETS`. stem: the stride of the first convolution
    along each axis, in place of the preset's own ("parent" has a fixed one); thick slices want 1
    along their axis."""

    preset: str = "small"
    stem: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """One local pass and how many of them.

    rounds: rounds of the federation. local_epochs: passes over a site's cases in each round; the
    pooled and single-site models take rounds x local_epochs passes. batch: cases a step, of all
    sites together; each takes its share, at least 1 (`fed.counts.share_of_batch`). drop_sequence:
    chance that a scanned sequence is hidden from one sample (one always stays). clip: largest
    gradient norm. lesion: chance that a sample is centred on the tumour rather than anywhere in
    the brain. augment: strength of augmentation, 0 none, 1 as published in `learn.augment`.
    """

    rounds: int = 30
    local_epochs: int = 1
    batch: int = 2
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


@dataclass(frozen=True)
class FederationConfig:
    """How updates are merged and which are refused.

    server_lr: how far the federated model goes towards the mean of the sites' models; 1 is
    federated averaging, more makes up for sites that each take few steps a round.
    moments: where AdamW's moments are: each site keeps its own, or all share the mean of theirs,
    which travels with the model at three times its bytes.
    max_norm_ratio: an update whose change from the round's model has an L2 norm above this many
    times the model's own norm is refused. max_cases: the largest case count a site may claim.
    quorum: updates that must pass for a round to be committed. deadline: seconds that a site on
    another machine has to answer a request; one that has not is left out of the round.
    """

    strategy: str = "label_aware"
    server_lr: float = 1.0
    moments: Literal["own", "shared"] = "own"
    max_norm_ratio: float = 2.0
    max_cases: int = 20_000
    quorum: int = 1
    deadline: float = 3600.0


@dataclass(frozen=True)
class ScoreConfig:
    """bootstrap: replicates of each 95 % interval. mirror: average the prediction with that of
    the left-right mirrored scan."""

    bootstrap: int = 2000
    mirror: bool = True


@dataclass(frozen=True)
class CalibrationConfig:
    """What is asked of a calibration, decided before any case is seen.

    kind: of scaling. alpha: how often a prediction set may miss the true class; by_class: within
    each class. risk: the share of errors wished for among the answers that are kept. least: the
    probability below which no integrated type is named.
    """

    kind: Literal["temperature", "platt"] = "platt"
    alpha: float = 0.1
    by_class: bool = True
    risk: float = 0.1
    least: float = 0.8


@dataclass(frozen=True)
class Study:
    """The whole study. `digest` names it: equal digests decide equal results."""

    name: str
    data: DataConfig
    seeds: tuple[int, ...] = (1,)
    models: tuple[Kind, ...] = ("federated", "pooled", "alone")
    grid: GridConfig = field(default_factory=GridConfig)
    prepare: PreparationConfig = field(default_factory=PreparationConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    net: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings in canonical JSON; where the data lies does not enter."""
        plain = dataclasses.asdict(self)
        del plain["data"]["root"], plain["data"]["features"]
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises StudyError: no such file, TOML that does not parse, an unknown key (with the nearest
    valid one), a missing key, a value of another kind, or settings that contradict each other.
    """
    study = parse_study(read_toml(path, "study"), where=str(path))
    root = (path.parent / study.data.root).resolve()
    features = tuple((path.parent / f).resolve() for f in study.data.features)
    data = dataclasses.replace(study.data, root=root, features=features)
    return dataclasses.replace(study, data=data)


def parse_study(raw: Mapping[str, Any], where: str = "study") -> Study:
    """A checked `Study` from plain TOML values; `where` opens each error message."""
    study = build(Study, raw, where)
    _check(study, where)
    return study


def study_toml(study: Study) -> str:
    """The study as TOML with every default written out, ready for `load_study`."""
    return toml_of(dataclasses.asdict(study))


def _check(study: Study, where: str) -> None:
    """Settings that are each well formed but at odds with each other or with arithmetic."""
    data, train = study.data, study.train
    both = sorted(set(data.train) & set(data.external))
    strangers = sorted(set(data.leave_one_out) - set(data.train))
    named = {s for site in (*data.train, *data.external) for s in (site, site.rpartition("/")[0])}
    nowhere = sorted(set(data.formats) - named)
    faults = (
        (not data.train, "data.train: name at least one hospital"),
        (bool(both), f"data: {both} stand in both train and external"),
        (bool(strangers), f"data.leave_one_out: {strangers} are not in data.train"),
        (bool(nowhere), f"data.formats: {nowhere} are in neither data.train nor data.external"),
        (bool(data.leave_one_out) and bool(data.external),
         "data: give external or leave_one_out, not both"),
        (not (data.leave_one_out or data.external),
         "data: give external hospitals, or leave_one_out"),
        (not data.overlap_by or len(set(data.overlap_by)) < len(data.overlap_by),
         'data.overlap_by: give "id", "image" or both, each once'),
        (not 0 <= data.holdout < 1, "data.holdout: expected at least 0 and below 1"),
        (min(train.rounds, train.local_epochs, train.batch) < 1,
         "train: rounds, local_epochs and batch must be at least 1"),
        (train.lr <= 0 or train.clip <= 0, "train: lr and clip must be above 0"),
        (not 0 <= train.drop_sequence < 1, "train.drop_sequence: at least 0 and below 1"),
        (any(s != "native" and s <= 0 for s in study.grid.spacing_mm),
         "grid.spacing_mm: every spacing must be above 0 mm"),
        (min(study.grid.patch) < 16, "grid.patch: every side must be at least 16 voxels"),
        (not 0 <= study.quality.brain_litres[0] < study.quality.brain_litres[1],
         "quality.brain_litres: give the least and the greatest volume, in litres"),
        (not 0 <= study.quality.template_dice < 1,
         "quality.template_dice: at least 0 and below 1"),
        (study.quality.alignment < 0, "quality.alignment: at least 0 (not asked for)"),
        (study.prepare.space == "mni152" and "native" in study.grid.spacing_mm,
         'grid.spacing_mm: "native" needs prepare.space = "scanner"'),
        (not study.models, "models: name at least one"),
        ("parent" in study.models and study.net.preset == "parent",
         'models: net.preset is "parent" already, so that "parent" would be "pooled" again'),
        ("parent" in study.models and not {"federated", "pooled", "alone"} & {*study.models},
         'models: "parent" is there for comparison; name "federated", "pooled" or "alone" too'),
        (any(m.startswith("radiomics") for m in study.models) and not data.features,
         "data.features: the models of radiomics need it; name the tables of features"),
        (not study.seeds, "seeds: give at least one"),
        (len(set(study.seeds)) < len(study.seeds), "seeds: each must differ"),
        (study.score.bootstrap < 100, "score.bootstrap: at least 100 replicates"),
        (not 0 < study.calibration.alpha < 1, "calibration.alpha: above 0 and below 1"),
        (not 0 <= study.calibration.risk < 1, "calibration.risk: at least 0 and below 1"),
        (not 0 <= study.calibration.least <= 1, "calibration.least: from 0 to 1"),
        (study.federation.quorum < 1, "federation.quorum: at least 1"),
        (not 0 < study.federation.server_lr <= 4, "federation.server_lr: above 0 and at most 4"),
    )  # fmt: skip
    for fault, message in faults:
        if fault:
            raise StudyError(f"{where}: {message}")
