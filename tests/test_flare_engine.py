"""What a training job carries, what stays in a kit, and that FLARE changes no bit of a run.

The same with a server that is killed is in `test_faults.py`.
"""

import dataclasses
import json

import pytest
import torch
from drill import drill, same_weights, undisturbed
from federation_kits import make_kits

import gliofed
from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.kit import open_kit
from gliofed.deployment.site_data import read_data_paths, write_data_paths
from gliofed.deployment.training_job import make_job, parse_job, run_id
from gliofed.errors import StudyError
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.governance.approval import parse_study_text
from gliofed.federated.governance.default_policy import DEFAULT_POLICY_TOML


@pytest.fixture
def study(tiny_study):
    return dataclasses.replace(
        tiny_study,
        data=dataclasses.replace(tiny_study.data, train=("north", "south", "west")),
        federation=dataclasses.replace(tiny_study.federation, quorum=2, deadline=120.0),
    )


def test_a_segment_is_what_its_job_says(study) -> None:
    segment = make_job(study, rounds=3, sites=("north",))
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


def measured(state: CommittedRound) -> list[tuple[object, ...]]:
    """The history without times and sizes."""
    return [
        (p.numbers, p.losses, p.dice, p.gradient_norm, p.merged, p.refused) for p in state.history
    ]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("rules", "epochs", "train", "commits"),
    [  # 12 cases a hospital, batches of 8
        ({"method": "synchronous"}, 2, ("north", "west"), [2, 1, 1, 2]),
        ({"method": "label_aware"}, 2, ("north", "west"), [1, 1]),
        ({"privacy": "secure-sum"}, 1, ("east", "north", "west"), [2, 2, 1]),
    ],
    ids=["synchronous", "label_aware", "secure-sum"],
)
def test_flare_and_one_process_end_with_the_same_bits(
    rules, epochs, train, commits, tmp_path
) -> None:
    """Under the policy that hospitals start with, in both."""
    torch.set_num_threads(1)  # as each of the drill's processes
    with drill(
        tmp_path / "far", epochs, deadline=60.0, train=train, batch=8, cases=15,
        federation={**rules, "commit": 2, "share_model": True}, policy=DEFAULT_POLICY_TOML,
    ) as d:  # fmt: skip
        d.start(SERVER, *d.sites, LEAD)
        end, state, wrong = d.over(), d.committed, d.is_sound()
        theirs = {s: gliofed.fetch_model(d.place.kits / s, tmp_path / s) for s in d.sites}
    assert not wrong
    assert end.state == "completed", end.why
    assert [p.rounds for p in state.history] == commits
    assert all(set(p.merged.values()) == {p.rounds} for p in state.history)
    made = gliofed.read_model(d.place.kits / SERVER / "gliofed/work" / end.run / "model")
    assert {s: own.model.id for s, own in theirs.items()} == dict.fromkeys(d.sites, made.id)
    assert all({r.site for r in own.scores} == {s} for s, own in theirs.items())
    assert not end.undelivered
    near, tested = undisturbed(d, tmp_path / "near")
    assert same_weights(state, near)
    assert measured(state) == measured(near)
    assert [dataclasses.replace(r, note="") for r in end.rows] == [
        dataclasses.replace(r, note="") for r in tested.rows
    ]
