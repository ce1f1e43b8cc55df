"""A study: everything that decides a result, in one TOML file and one frozen value.

    study = load_study(Path("studies/tcga-lgg.toml"))
    study.train.rounds

Unknown keys are refused with the nearest valid one named; a value of another kind is refused with
the kind expected. Paths in `[data]` are relative to the study file.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gliofed.errors import StudyError
from gliofed.markers import BY_ID, MARKERS

Spacing = float | Literal["native"]
BrainWay = Literal["auto", "given", "stripped", "deepbet", "hd-bet"]


@dataclass(frozen=True)
class Data:
    """Where the hospitals are. Each of `train` and `external` is a folder below `root`.

    holdout: fraction of each training site's patients kept for its own test row (a site with
    fewer than `holdout_from` cases keeps none). overlap: what to do with a patient found at two
    sites: "refuse" the study, or "drop" the case from training (external test wins, then the
    first site in `train`). overlap_by: how such a patient is found: by the id in normal form, by
    the scans; "id" alone compares no images, and "image" alone trusts no id.
    leave_one_out: sites to hold out in turn, each tested by models trained on all other `train`
    sites; takes the place of `external`.
    formats: site to the layout its folder has, a row of `gliofed.datasets.formats.FORMATS`; "bids"
    where it is not named. Where it names a set of several hospitals, "set/hospital" is a site too.
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


@dataclass(frozen=True)
class Grid:
    """The voxels that the network sees.

    spacing_mm: voxel size along right, anterior and superior (RAS axes); "native" keeps that
    axis as scanned. patch: voxels a training sample has; a smaller brain is padded with 0.
    """

    spacing_mm: tuple[Spacing, Spacing, Spacing] = (1.0, 1.0, 1.0)
    patch: tuple[int, int, int] = (96, 96, 96)


@dataclass(frozen=True)
class Prepare:
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
class Quality:
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
class Net:
    """preset: a row of `gliofed.nets.presets.PRESETS`. stem: the stride of the first convolution
    along each axis, in place of the preset's own ("parent" has a fixed one); thick slices want 1
    along their axis."""

    preset: str = "small"
    stem: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Train:
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
class Loss:
    """Factors of the training loss, one a task (0 leaves the task out of training).

    Defaults for the markers are those of the marker table.
    """

    mask: float = 1.0
    markers: Mapping[str, float] = field(
        default_factory=lambda: {m.id: m.task_weight for m in MARKERS}
    )
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Federation:
    """How updates are merged and which are refused.

    server_lr: how far the federated model goes towards the mean of the sites' models; 1 is
    federated averaging, more makes up for sites that each take few steps a round.
    max_norm_ratio: an update whose change from the round's model has an L2 norm above this many
    times the model's own norm is refused. max_cases: the largest case count a site may claim.
    quorum: updates that must pass for a round to be committed. deadline: seconds that a site on
    another machine has to answer a request; one that has not is left out of the round.
    """

    strategy: str = "label_aware"
    server_lr: float = 1.0
    max_norm_ratio: float = 2.0
    max_cases: int = 20_000
    quorum: int = 1
    deadline: float = 3600.0


@dataclass(frozen=True)
class Score:
    """bootstrap: replicates of each 95 % interval. mirror: average the prediction with that of
    the left-right mirrored scan."""

    bootstrap: int = 2000
    mirror: bool = True


@dataclass(frozen=True)
class Study:
    """The whole study. `digest` names it: equal digests decide equal results."""

    name: str
    data: Data
    seeds: tuple[int, ...] = (1,)
    models: tuple[Literal["federated", "pooled", "alone"], ...] = ("federated", "pooled", "alone")
    grid: Grid = field(default_factory=Grid)
    prepare: Prepare = field(default_factory=Prepare)
    quality: Quality = field(default_factory=Quality)
    net: Net = field(default_factory=Net)
    train: Train = field(default_factory=Train)
    loss: Loss = field(default_factory=Loss)
    federation: Federation = field(default_factory=Federation)
    score: Score = field(default_factory=Score)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings in canonical JSON; where the data lies does not enter."""
        plain = dataclasses.asdict(self)
        plain["data"].pop("root")
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises StudyError: no such file, TOML that does not parse, an unknown key (with the nearest
    valid one), a missing key, a value of another kind, or settings that contradict each other.
    """
    study = parse_study(read_toml(path, "study"), where=str(path))
    root = (path.parent / study.data.root).resolve()
    return dataclasses.replace(study, data=dataclasses.replace(study.data, root=root))


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """The plain values of a TOML file; `kind` names it in an error.

    Raises StudyError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such {kind} file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from None


def parse_study(raw: Mapping[str, Any], where: str = "study") -> Study:
    """A checked `Study` from plain TOML values; `where` opens each error message."""
    study: Study = build(Study, raw, where)
    _check(study, where)
    return study


def study_toml(study: Study) -> str:
    """The study as TOML with every default written out, ready for `load_study`."""
    plain = dataclasses.asdict(study)
    tables = {k: v for k, v in plain.items() if isinstance(v, dict)}
    lines = [f"{k} = {_toml(v)}" for k, v in plain.items() if k not in tables]
    for name, table in tables.items():
        given = {k: v for k, v in table.items() if v is not None}
        lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in given.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def build(kind: Any, raw: object, where: str) -> Any:
    """Fill the dataclass `kind` from a TOML table; nothing is checked but keys and their kinds.

    Raises StudyError, opening with `where`: an unknown key (with the nearest valid one), a missing
    key, or a value of another kind than the annotation.
    """
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table, found {raw!r}")
    hints = typing.get_type_hints(kind)
    for key in raw:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
            raise StudyError(f"{where}: unknown key {key!r}; the nearest valid key is {near!r}")
    for item in dataclasses.fields(kind):
        needed = item.default is item.default_factory is dataclasses.MISSING
        if needed and item.name not in raw:
            raise StudyError(f"{where}: missing key {item.name!r}")
    values = {k: _value(hints[k], v, f"{where}: {k}") for k, v in raw.items()}
    return kind(**values)


def _value(kind: Any, raw: object, where: str) -> Any:  # noqa: PLR0911  (one return a kind)
    """One setting, checked against its annotation; lists become tuples, ints serve as floats."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build(kind, raw, where)
    if origin is tuple:
        return _tuple(args, raw, where)
    if origin in (typing.Union, types.UnionType):
        return _union(args, raw, where)
    if origin is typing.Literal:
        if raw in args:
            return raw
        raise StudyError(f"{where}: expected one of {list(args)}, found {raw!r}")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _texts(raw, where) if args[1] is str else _weights(raw, where)
    if kind is Path and isinstance(raw, str):
        return Path(raw)
    if kind is float and type(raw) is int:
        return float(raw)
    if type(raw) is kind:
        return raw
    raise StudyError(f"{where}: expected {getattr(kind, '__name__', kind)}, found {raw!r}")


def _tuple(args: tuple[Any, ...], raw: object, where: str) -> tuple[Any, ...]:
    if not isinstance(raw, list | tuple):
        raise StudyError(f"{where}: expected a list, found {raw!r}")
    if args[-1] is not Ellipsis and len(raw) != len(args):
        raise StudyError(f"{where}: expected {len(args)} values, found {len(raw)}")
    kinds = [args[0]] * len(raw) if args[-1] is Ellipsis else args
    return tuple(_value(k, v, where) for k, v in zip(kinds, raw, strict=True))


def _union(args: tuple[Any, ...], raw: object, where: str) -> Any:
    options = [a for a in args if a is not types.NoneType]
    for option in options:
        try:
            return _value(option, raw, where)
        except StudyError:
            if len(options) == 1:
                raise
    raise StudyError(f'{where}: expected a number or "native", found {raw!r}')


def _texts(raw: object, where: str) -> Mapping[str, str]:
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table of names, found {raw!r}")
    return {str(k): str(_value(str, v, f"{where}: {k}")) for k, v in raw.items()}


def _weights(raw: object, where: str) -> Mapping[str, float]:
    """Marker weights; markers left out keep their own row's weight."""
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table of marker weights, found {raw!r}")
    for key, value in raw.items():
        if key not in BY_ID:
            near = difflib.get_close_matches(key, BY_ID, n=1, cutoff=0.0)[0]
            raise StudyError(f"{where}: unknown marker {key!r}; the nearest one is {near!r}")
        if type(value) not in (int, float) or value < 0:
            raise StudyError(f"{where}.{key}: expected a number of at least 0, found {value!r}")
    return {m.id: float(raw.get(m.id, m.task_weight)) for m in MARKERS}


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
        (not study.seeds, "seeds: give at least one"),
        (len(set(study.seeds)) < len(study.seeds), "seeds: each must differ"),
        (study.score.bootstrap < 100, "score.bootstrap: at least 100 replicates"),
        (study.federation.quorum < 1, "federation.quorum: at least 1"),
        (not 0 < study.federation.server_lr <= 4, "federation.server_lr: above 0 and at most 4"),
    )  # fmt: skip
    for fault, message in faults:
        if fault:
            raise StudyError(f"{where}: {message}")
