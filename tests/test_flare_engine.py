"""What a training job carries between the lead and the sites, and what stays in a kit.

A job on real FLARE processes, beside the same study in one process, is in `test_faults.py`.
"""

import dataclasses
import json

import pytest
from federation_kits import make_kits

import gliofed
from gliofed.deployment.kit import open_kit
from gliofed.deployment.site_data import read_data_paths, write_data_paths
from gliofed.deployment.training_job import make_job, parse_job, run_id
from gliofed.errors import StudyError
from gliofed.federated.governance.approval import parse_study_text


@pytest.fixture
def study(tiny_study):
    return dataclasses.replace(
        tiny_study,
        data=dataclasses.replace(tiny_study.data, train=("north", "south", "west")),
        federation=dataclasses.replace(tiny_study.federation, quorum=2, deadline=120.0),
    )


def test_a_segment_is_what_its_job_says(study) -> None:
    segment = make_job(study, rounds=3, withdrawn=("west",))
    assert parse_job(json.loads(json.dumps(segment.plain))) == segment
    assert segment.run == run_id(parse_study_text(segment.study))
    with pytest.raises(StudyError, match="the nearest valid key is 'rounds'"):
        parse_job({**segment.plain, "round": 1})


def test_a_study_that_hospitals_cannot_do_apart_is_refused(study) -> None:
    turns = dataclasses.replace(study.data, external=(), leave_one_out=("north",))
    with pytest.raises(StudyError, match="leave_one_out"):
        make_job(dataclasses.replace(study, data=turns), 1)
    with pytest.raises(StudyError, match="seeds"):
        make_job(dataclasses.replace(study, seeds=(1, 2)), 1)


def test_where_the_scans_are_stays_in_the_kit(tmp_path) -> None:
    make_kits(tmp_path / "kits", "north")
    kit = open_kit(tmp_path / "kits/north", "site")
    own = gliofed.SiteDataPaths(tmp_path / "scans", tmp_path / "store", "brats")
    write_data_paths(kit, own)
    assert read_data_paths(kit) == own
    (path,) = kit.own.glob("member.toml")
    assert path.stat().st_mode & 0o777 == 0o600
