"""The prepared store among killed processes, power cuts and full disks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import STRIPPED, write_hospital
from prepared_stores import entries, prepare_as_a_run_does, prepare_here

from gliofed.data.formats.bids import read_bids
from gliofed.data.store import PreparedStore
from gliofed.errors import DataError, GliofedError, UnwritableError
from gliofed.study import GridConfig

GRID = GridConfig(spacing_mm=(1.0, 1.0, 1.0))
ROW = ("1", "0", "1", "2")


@pytest.fixture
def north(tmp_path) -> Path:
    return write_hospital(tmp_path / "north", dict.fromkeys(("A", "B", "C"), ROW))


HOLD = """
import sys, time
from pathlib import Path
from gliofed.data.store import PreparedStore
store = PreparedStore(Path(sys.argv[1]))
with store._part("key") as part:
    (part / "image.npy").write_text("half")
    print(part.name, flush=True)
    time.sleep(600)
"""


@pytest.mark.process
def test_only_what_a_dead_process_left_is_swept_away(tmp_path) -> None:
    store = PreparedStore(tmp_path / "store")
    (store.root / ".old.part").mkdir()  # left without a lock
    (store.root / ".older.part.lock").touch()  # or the lock alone
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root)], stdout=subprocess.PIPE, text=True
    )
    name = process.stdout.readline().strip()
    store.sweep()
    assert {p.name for p in store.root.iterdir()} == {name, f"{name}.lock"}
    process.kill()
    process.communicate()
    store.sweep()
    assert not list(store.root.iterdir())


def test_a_folder_that_is_no_entry_does_not_stand_in_the_way(north, tmp_path) -> None:
    store = PreparedStore(tmp_path / "store")
    cases = read_bids(north, "north")
    (prepared, *_) = prepare_here(cases[:1], GRID, STRIPPED, store)
    (store.root / prepared.key / "entry.json").unlink()  # as a deletion that was cut short
    (again,) = prepare_here(cases[:1], GRID, STRIPPED, store)
    assert again.key == prepared.key
    assert len(entries(store.root)) == 1


def test_an_entry_is_on_the_disk_before_it_has_its_name(north, tmp_path, monkeypatch) -> None:
    """What a power cut can take: a name is given after all bytes are synced."""
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        sync(handle)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    store = PreparedStore(tmp_path / "store")
    prepare_here(read_bids(north, "north")[:1], GRID, STRIPPED, store)
    assert done[:3] == ["image.npy", "mask.npy", "entry.json"]
    assert done[3].endswith(".part")  # the folder with their names
    assert done[4:] == ["rename", "store"]


@pytest.mark.process
def test_every_failed_case_is_named_and_the_others_are_in_the_store(tmp_path) -> None:
    north = write_hospital(tmp_path / "north", {f"{n:02d}": ROW for n in range(14)})
    for number in range(2, 14):
        (north / f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz").write_bytes(b"no scan")
    store = PreparedStore(tmp_path / "store")
    with pytest.raises(GliofedError) as caught:
        prepare_as_a_run_does(read_bids(north, "north"), GRID, store.root)
    text = str(caught.value)
    assert text.startswith("12 of 14 cases cannot be prepared, the others are in the store: ")
    assert all(f"sub-{n:02d}_T1w" in text for n in range(2, 12))
    assert "sub-12_T1w" not in text
    assert text.endswith("; and 2 more")
    assert len(entries(store.root)) == 2


def test_a_store_that_cannot_be_written_stops_at_once(north, tmp_path, monkeypatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    store = PreparedStore(tmp_path / "store")
    monkeypatch.setattr("gliofed.data.store.keep", full)
    with pytest.raises(UnwritableError, match="No space left on device"):
        prepare_here(read_bids(north, "north"), GRID, STRIPPED, store)
    assert not list(store.root.iterdir())


def test_a_source_that_may_not_be_read_is_named(north, tmp_path) -> None:
    store = PreparedStore(tmp_path / "store")
    with pytest.raises(DataError, match="north: cannot be read"):
        store.file_digest(north)  # a folder: even the administrator cannot read it as a file


def test_a_whole_store_is_not_written_to_again(north, tmp_path) -> None:
    cases = read_bids(north, "north")
    store = PreparedStore(tmp_path / "store")
    prepare_here(cases[:2], GRID, STRIPPED, store)
    store.save_digests()
    written = (store.root / "digests.json").stat().st_mtime_ns
    again = PreparedStore(store.root)
    prepare_here(cases[:2], GRID, STRIPPED, again)
    again.save_digests()
    assert (store.root / "digests.json").stat().st_mtime_ns == written
    prepare_here(cases, GRID, STRIPPED, again)
    again.save_digests()
    assert (store.root / "digests.json").stat().st_mtime_ns > written
