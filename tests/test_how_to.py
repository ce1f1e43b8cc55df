"""Every command block of docs/how-to is run as printed, on small made-up data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from conftest import write_hospital
from federation_kits import PATIENCE_S, free_port, running, verb
from how_to import OTHERS, PAGES, Command, Desk, block_with, blocks, commands
from how_to_scenes import BETWEEN, SCENES, SMALL

import gliofed
from gliofed.deployment.join import record_approval
from gliofed.federated.flare.process import ProcessCommand
from gliofed.models.presets import PRESETS

NOT_RUN: Final[Mapping[str, str]] = {
    "pip install": "changes the environment that the tests run in",
    "make setup": "makes an environment of some GB",
    ".venv/bin/python -c": "asks the environment of `make setup` for a GPU",
    "gliofed intake https://pacs.north.example/": "needs a hospital's PACS: test_dicom_web has one",
    "gliofed receive": "listens on a hospital's address: test_dicom_receive has one of its own",
    "gliofed radiomics": "needs PyRadiomics or published tables: test_radiomics_extract, test_hospital_study",
    "gliofed federation try": "takes minutes: the steps of the page are run one by one instead",
    "cd federated-bundle": "changes the folder for the next command only",
    "gliofed run studies/five-public-sets.toml": "test_five_public_sets runs it",
    "python benchmarks/five_public_sets.py": "takes minutes: test_five_public_sets has its steps",
    "python -m monai.bundle run": "test_handout runs MONAI on an exported bundle",
}
"""Commands that are not run, by their beginning, and why."""
STEPS: Final = "run-a-federation"


def not_run(command: Command) -> bool:
    return any(command.text.startswith(start) for start in NOT_RUN)


ALL: Final = {page.stem: commands(page) for page in sorted(PAGES.glob("*.md"))}
RUN: Final = [stem for stem, own in ALL.items() if own and stem != STEPS]


def test_every_page_with_commands_has_a_scene_and_no_block_is_overlooked() -> None:
    assert set(SCENES) == set(RUN)
    assert sum(map(len, ALL.values())) >= 40
    languages = {language for page in PAGES.glob("*.md") for language, _ in blocks(page)}
    assert languages <= {"sh", "bash", "console", *OTHERS}


@pytest.mark.parametrize("start", [*NOT_RUN, *BETWEEN])
def test_no_entry_of_the_lists_is_stale(start) -> None:
    assert any(c.text.startswith(start) for own in ALL.values() for c in own)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, without_pictures) -> None:
    """A network of two levels and few channels, and no figures."""
    thin = dataclasses.replace(PRESETS["small"], widths=(8, 16), convs_down=1, hidden=8)
    monkeypatch.setitem(PRESETS, "small", thin)


@pytest.mark.process
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run_as_printed(page, tmp_path, monkeypatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    desk = SCENES[page](tmp_path)
    for command in ALL[page]:
        for start, by_hand in BETWEEN.items():
            if command.text.startswith(start):
                by_hand(tmp_path)
        if not not_run(command):
            desk.run(command)


# the steps of a federation, with a process for each party


BY_HAND: Final = "north-hospital"
SERVICES: Final = ("south-hospital", "west-hospital")


def test_the_steps_of_a_federation_are_the_printed_ones() -> None:
    assert list(_steps()) == [
        "federation", "provision", "serve", "join", "start", "extend", "model", "predict"]  # fmt: skip


def _steps() -> dict[str, Command]:
    """The first printed command of gliofed of each kind, without those of kits."""
    own = [c for c in ALL[STEPS] if c.words[0] == "gliofed" and c.words[1] != "kit"]
    return {word: next(c for c in own if c.words[1] == word) for word in (c.words[1] for c in own)}


def test_kits_are_renewed_and_revoked_as_printed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = block_with(PAGES / f"{STEPS}.md", 'name = "glioma-eu"\nstudy').replace("study =", "# ")
    Path("federation.toml").write_text(plan)
    Desk(tmp_path, {}).run(_steps()["provision"])
    run = [c for c in ALL[STEPS] if c.words[:2] == ("gliofed", "kit")]
    assert [c.words[2] for c in run] == ["renew", "install", "revoke", "install"]
    renewed = {"/srv/gliofed/kit": f"kits/{BY_HAND}",
               f"{BY_HAND}.crt": f"kits/renewed/{BY_HAND}.crt"}  # fmt: skip
    revoked = {"/srv/gliofed/kit": "kits/server", "revoked.crl": "kits/revoked.crl"}
    for command, here in zip(run, (renewed, renewed, revoked, revoked), strict=True):
        Desk(tmp_path, here).run(command)
    assert Path("kits/server/gliofed/revoked.crl").is_file()


def as_service(work: Path, site: str) -> ProcessCommand:
    """The command of a kit's systemd unit, with its folders here."""
    unit = work / "kits" / site / "gliofed/service/gliofed-site.service"
    (line,) = (x for x in unit.read_text().splitlines() if x.startswith("ExecStart="))
    folders = {"kit": f"{work}/kits/{site}", "data": f"{work.parent}/data/{site}",
               "store": f"{work}/{site}-store"}  # fmt: skip
    for name, folder in folders.items():
        line = line.replace(f"/srv/gliofed/{name}", folder)
    program, *words = line.removeprefix("ExecStart=").split()
    assert program == "/srv/gliofed/venv/bin/gliofed"
    return verb(*words)


@pytest.mark.slow
@pytest.mark.process
def test_a_federation_trains_by_the_printed_commands_and_by_the_unit_of_a_kit(
    tmp_path, monkeypatch
) -> None:
    """North joins by hand, the others as services after their approval by hand."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for number, site in enumerate((BY_HAND, *SERVICES)):
        rows = {f"{site[:4]}{n}": (str(n % 2), "0", "1", "4") for n in range(13)}
        write_hospital(tmp_path / "data" / site, rows, seed=number + 1)
    (tmp_path / "data" / BY_HAND).rename(tmp_path / "data/bids")
    page = PAGES / f"{STEPS}.md"
    plan = block_with(page, 'name = "glioma-eu"\nstudy')
    plan = plan.replace("fed.example.org", "127.0.0.1").replace("8002", str(free_port()))
    Path("federation.toml").write_text(plan)
    study = block_with(page, 'name = "glioma-eu-1"').replace("epochs = 40", "epochs = 1")
    study = study.replace("quorum = 2", "quorum = 2\nshare_model = true")
    Path("study.toml").write_text(study + SMALL)
    desk = Desk(tmp_path, {})
    steps = _steps()
    desk.run(steps["provision"])
    services = {site: as_service(work, site) for site in SERVICES}
    with running(services["south-hospital"], work / "unapproved.txt") as unapproved:
        assert unapproved.wait(PATIENCE_S) == 78, (work / "unapproved.txt").read_text()
    for site in SERVICES:
        paths = gliofed.SiteDataPaths(tmp_path / "data" / site, work / f"{site}-store")
        record_approval(gliofed.propose(Path("kits") / site, paths), "Dr. Who", None)
    printed = {name: verb(*map(desk.here, command.words[1:])) for name, command in steps.items()}
    parties = {"serve": printed["serve"], BY_HAND: printed["join"], **services}
    with ExitStack() as stack:
        for name, process in parties.items():
            answer = b"y\n" if name == BY_HAND else b""
            stack.enter_context(running(process, work / f"{name}.txt", answer=answer))
        lead = stack.enter_context(running(printed["start"], work / "lead.txt"))
        lead.wait(4 * PATIENCE_S)
    texts = {p.stem: p.read_text(errors="replace") for p in work.glob("*.txt")}
    assert lead.returncode == 0, texts
    assert "3 of 3 rounds" in texts["lead"]
    assert "Approve this as" in texts[BY_HAND]
    assert not any("Approve this as" in texts[site] for site in SERVICES)
    end = gliofed.status(Path("kits/lead"))
    assert (end.state, set(end.compared), end.shared) == ("completed", {BY_HAND, *SERVICES}, {})
    write_hospital(tmp_path / "data/new-scans", {"new": ("1", "0", "1", "4")}, seed=9)
    desk.run(steps["model"])
    desk.run(steps["predict"])


@pytest.mark.process
def test_a_command_that_fails_fails_the_test(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("gliofed check nowhere", "false"):
        with pytest.raises(AssertionError, match="page: "):
            Desk(tmp_path, {}).run(Command("page", text))
