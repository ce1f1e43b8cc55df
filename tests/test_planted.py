"""Two hundred planted identifiers of patients, looked for in all that a federation leaves behind."""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import psutil
import pytest
from conftest import TINY, write_hospital
from federation_kits import listening, make_kits, running, verb, wait_for

import gliofed
from gliofed.models.folder import read_model
from gliofed.study import parse_study, study_toml

POLICY = "min_cases = 1\nmin_batch = 1\nsmallest_count = 1\n"
TRAIN, EXTERNAL = ("north", "south"), ("west",)
SITES = (*TRAIN, *EXTERNAL)
CASES = 4
CHANGED = Path(__file__).parent / "changed_site"
STAYS = ("gliofed/work/reports", "gliofed/member.toml", "gliofed/work/*/shared_patients.json")
"""What stays at a site and may name its files or patients: reports of failures, where the scans
are, and which of its patients other sites have too. Folders, or patterns of files."""

FAMILY = ("Müller", "Nowak", "García", "Jansen", "Özdemir", "Lindqvist", "Rossi", "O Brien")
_STEM = "Qxzv"


def identifiers() -> Mapping[str, list[str]]:
    """Two hundred, by kind; no other text has them by chance.

    Names are not written as DICOM does: `join` refuses a header that has one so.
    """
    return {
        "record": [f"MRN{_STEM}{n:04d}" for n in range(40)],
        "name": [f"{FAMILY[n % 8]}, {_STEM}a{n:02d}" for n in range(40)],
        "birth": [f"19{n + 30:02d}-0{n % 9 + 1}-{n % 19 + 10}" for n in range(40)],
        "accession": [f"ACC{_STEM}{n:05d}" for n in range(40)],
        "path": [f"ward {_STEM} {n:02d}" for n in range(20)],
        "mail": [f"{_STEM.lower()}.{n:02d}@clinic.example" for n in range(20)],
    }


class Planter:
    """Hands out identifiers of a kind in turn, and knows which were handed out."""

    def __init__(self) -> None:
        self._kinds, self._at = identifiers(), dict.fromkeys(identifiers(), 0)
        self.planted: set[str] = set()

    def take(self, kind: str) -> str:
        values = self._kinds[kind]
        found = values[self._at[kind] % len(values)]
        self._at[kind] += 1
        self.planted.add(found)
        return found


def plant(root: Path, planter: Planter, seed: int) -> Path:
    """A hospital with identifiers wherever its files have room for them; its folder."""
    take = planter.take
    home = root / take("path") / take("name") / take("mail")
    subjects = [take("record") for _ in range(CASES)]
    rows = {name: (str(n % 2), "0", "unknown", "2") for n, name in enumerate(subjects)}
    data = write_hospital(home / take("accession"), rows, seed=seed)
    table = data / "participants.tsv"
    head, *lines = table.read_text().splitlines()
    extra = ("name", "birth", "accession", "mail", "path", "record")
    known = [f"{30 + 7 * n + seed}\t{'MF'[n % 2]}" for n in range(len(lines))]
    lines = [
        "\t".join((line, age_sex, *map(take, extra)))
        for line, age_sex in zip(lines, known, strict=True)
    ]
    named = "\t".join((head, "age", "sex", *(f"own_{k}" for k in extra)))
    table.write_text("\n".join([named, *lines]) + "\n")
    for path in sorted(data.rglob("*.nii.gz")):
        image = nib.load(path)
        image = nib.Nifti1Image(image.get_fdata().astype(image.get_data_dtype()), image.affine)
        for field, kind in (("descrip", "name"), ("aux_file", "accession"),
                            ("intent_name", "birth"), ("db_name", "record")):  # fmt: skip
            image.header[field] = take(kind).encode("latin-1")
        nib.save(image, path)
        sidecar = {"PatientName": take("name"), "PatientBirthDate": take("birth"),
                   "AccessionNumber": take("accession"), "OperatorsName": take("mail"),
                   "ManufacturersModelName": take("record")}  # fmt: skip
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(
            json.dumps(sidecar, ensure_ascii=False)
        )
    (data / take("path")).mkdir()
    return data


def found_in(data: bytes, wanted: set[str]) -> set[str]:
    """Which of `wanted` stand in the bytes, as UTF-8, Latin-1 or JSON; in a zip, in its files."""
    possible = wanted
    if not any(stem in data for stem in (_STEM.encode(), _STEM.lower().encode())):
        possible = {w for w in wanted if _STEM.lower() not in w.lower()}  # no other can be there
    found = {w for w in possible for form in _forms(w) if form in data}
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for name in packed.namelist():
                found |= found_in(name.encode(), wanted) | found_in(packed.read(name), wanted)
    return found


def _forms(text: str) -> set[bytes]:
    return {text.encode(), text.encode("latin-1"), json.dumps(text)[1:-1].encode()}


def leaks(root: Path, wanted: set[str], without: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """What stands in the files below `root` and in their names, by file."""
    out = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if any(name.is_relative_to(w) or name.match(w) for w in without):
            continue
        data = path.read_bytes() if path.is_file() else b""
        if found := found_in(str(name).encode(), wanted) | found_in(data, wanted):
            out[str(path)] = found
    return out


@dataclass(frozen=True)
class Ran:
    """A federation that has run. arguments: of every process of FLARE's that was seen."""

    root: Path
    kits: Path
    planted: set[str]
    arguments: set[str]
    end: gliofed.RunStatus


class Onlooker(threading.Thread):
    """Reads the arguments of all processes of the kits while it runs, but of the verbs.

    `gliofed join --data FOLDER` is what the hospital's own person typed.
    """

    def __init__(self, kits: Path) -> None:
        super().__init__(daemon=True)
        self._kits, self.seen, self.over = str(kits), set(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            for one in psutil.process_iter(["cmdline"]):
                words = one.info["cmdline"] or []
                if any(self._kits in w for w in words) and "gliofed.cli.main" not in words:
                    self.seen.add("\0".join(words))


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    """Counted, trained, failed at one site, and tested, over TLS."""
    root = tmp_path_factory.mktemp("planted")
    kits, planter = root / "kits", Planter()
    plan = make_kits(kits, *SITES)
    tiny = parse_study(TINY)
    study = dataclasses.replace(
        tiny,
        models=("federated", "age_sex", "fusion"),
        data=dataclasses.replace(
            tiny.data, train=TRAIN, external=EXTERNAL, holdout=0.25, holdout_from=CASES
        ),
        federation=dataclasses.replace(tiny.federation, quorum=1, deadline=180.0),
    )
    (root / "study.toml").write_text(study_toml(study))
    onlooker = Onlooker(kits)
    onlooker.start()
    with ExitStack() as stack:
        stack.enter_context(running(verb("serve", kits / "server"), root / "server.txt"))
        wait_for(lambda: listening(plan.server.port), "a server that listens")
        for number, name in enumerate(SITES):
            (kits / name / "gliofed/policy.toml").write_text(POLICY)
            data = plant(root / name, planter, number)
            process = verb(
                "join", kits / name, "--data", data, "--store", root / name / planter.take("path"),
                "--study", root / "study.toml", "--yes",
                GLIOFED_TEST_SITE="kept_answers", GLIOFED_TEST_KEPT=str(root / f"kept-{name}"),
                PATIENT_ON_TABLE=planter.take("name"), PATIENT_NUMBER=planter.take("record"),
            )  # fmt: skip
            stack.enter_context(running(process, root / f"{name}.txt", path=CHANGED))
        for name in SITES:
            said = root / f"{name}.txt"
            wait_for(lambda s=said: "connected to" in s.read_text(), f"{name} is let in")
        end = gliofed.start(
            root / "study.toml", kits / "lead", lambda now: None, gliofed.RetryLimits(gather=0)
        )
    onlooker.over.set()
    onlooker.join(10)
    return Ran(root, kits, planter.planted, onlooker.seen, end)


@pytest.mark.process
@pytest.mark.slow
def test_no_planted_identifier_is_where_others_can_read(ran) -> None:
    everything = {one for kind in identifiers().values() for one in kind}
    assert len(everything) == 200
    assert ran.planted == everything
    assert ran.end.state == "completed"
    assert set(ran.end.points[0].answered) == set(TRAIN)
    why = ran.end.points[0].refused["south"]  # the rounds of the first pass are committed together
    assert "in stage train" in why
    assert why.endswith("(1 of 3 rounds)")
    assert {r.role for r in ran.end.rows} == {"external", "holdout"}
    assert ran.end.fusion.startswith("IDH mutation: log odds of the network x 0.")
    assert ran.end.unfused == {}

    for kit in ("server", "lead"):
        assert leaks(ran.kits / kit, everything) == {}
    for name in SITES:
        assert leaks(ran.kits / name, everything, without=STAYS) == {}
        answers = ran.root / f"kept-{name}"
        assert len(list(answers.iterdir())) >= {"north": 4, "south": 3, "west": 1}[name]
        assert leaks(answers, everything) == {}
    assert any("worker_process" in one for one in ran.arguments)
    assert any("runner_process" in one for one in ran.arguments)
    assert found_in("\n".join(ran.arguments).encode(), everything) == set()
    assert found_in((ran.root / "server.txt").read_bytes(), everything) == set()


@pytest.mark.process
@pytest.mark.slow
def test_the_model_of_a_federation_has_the_fusion_of_its_sites(ran) -> None:
    (folder,) = ran.kits.glob("server/gliofed/work/*/model")
    model = read_model(folder)
    assert model.fusion is not None
    fused = model.fusion.markers["idh"]
    ages = [30 + 7 * n + seed for seed in range(len(TRAIN)) for n in range(CASES)]
    assert min(ages) < fused.person.mean[0] < max(ages)
    assert fused.person.scale[0] > 0
    assert sum(fused.cases) == len(TRAIN)  # one held-out case of four at each
    assert set(model.fusion.calibrations) == {0}
    assert "With age and sex: IDH mutation" in model.card
    assert model.id in model.card


@pytest.mark.process
@pytest.mark.slow
def test_what_stays_at_the_site_does_name_them_so_that_the_search_can_fail(ran) -> None:
    south = ran.kits / "south"
    events = [x.event for x in gliofed.read_log(south / "gliofed/audit.jsonl")]
    assert "failure-reported" in events
    named = set().union(*leaks(south, ran.planted).values())
    assert {one for one in named if one.startswith(("MRN", "ward", "ACC"))}


def test_the_search_finds_what_is_planted_in_a_log_however_it_is_written(tmp_path) -> None:
    everything = {one for kind in identifiers().values() for one in kind}
    name = "Müller, Qxzva00"
    assert name in everything
    log = tmp_path / "kit/log.txt"
    log.parent.mkdir()
    for text in (name.encode(), name.encode("latin-1"), json.dumps(name).encode()):
        log.write_bytes(b"INFO before " + text + b" after\n" + b"\0" * 100)
        assert leaks(tmp_path, everything) == {str(log): {name}}
    with zipfile.ZipFile(log, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner.txt", f"x {name} y" * 50)
    assert leaks(tmp_path, everything) == {str(log): {name}}
    log.write_bytes(b"nothing of the kind")
    assert leaks(tmp_path, everything) == {}
    log.rename(log.with_name("ward Qxzv 00"))
    assert set().union(*leaks(tmp_path, everything).values()) == {"ward Qxzv 00"}
