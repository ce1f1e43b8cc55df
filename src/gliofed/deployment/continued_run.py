"""More rounds for a finished run: a new run that begins where the finished one ended.

The study of the new run names the finished one (`federation.continues`) and has more epochs. Its
digest is another one, so that every hospital reads and approves it anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from gliofed.deployment.kit import open_kit
from gliofed.deployment.models_of_server import keep_caution, kept_caution
from gliofed.deployment.run_status import read_status
from gliofed.deployment.training_job import run_id, study_for_sites
from gliofed.errors import CheckpointError, StudyError
from gliofed.federated.checkpoint import CommittedRound, commit, last_committed
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.withdrawals import read_withdrawn, record_change
from gliofed.federated.schedule import longer_schedule
from gliofed.runtime.files import write_text
from gliofed.settings import read_toml
from gliofed.study import Study, parse_study, study_toml, with_default_operations

STUDY: Final = "study.toml"
"""The study of a run, in its folder at the server."""


def extend(study: Path, kit: Path, epochs: int, out: Path) -> Study:
    """Write the study that continues the finished run of `study` up to `epochs` epochs in all.

    kit: the lead's. out: the new study file. Raises KitError, StudyError; CheckpointError where
    this kit has no finished run of the study.
    """
    lead_kit = open_kit(kit, "lead")
    before = parse_study(read_toml(study, "study"), str(study))
    if before.federation.validates:
        raise StudyError(f"{study}: validates a model, and trains none that could be continued")
    run = run_id(study_for_sites(before))
    status = read_status(lead_kit.work / run)
    if status.state != "completed":
        raise CheckpointError(
            f"{study}: its run is {status.state}, not completed; gliofed start {study} continues it"
        )
    if epochs <= before.train.epochs:
        raise StudyError(
            f"{study}: was trained for {before.train.epochs} epochs; give a larger number, in all"
        )
    if out.exists():
        raise StudyError(f"{out}: exists; choose another name for the new study")
    train = dataclasses.replace(before.train, epochs=epochs)
    federation = dataclasses.replace(before.federation, continues=run)
    after = dataclasses.replace(before, train=train, federation=federation)
    write_text(out, study_toml(after))
    return after


def begin_run(study: Study, run: Path, log: AuditLog) -> None:
    """Begin the run in the folder `run` of the server, where no job of it has begun before.

    Writes its study. A run that continues another begins with that one's last commit, its schedule
    prolonged, and the sites that have withdrawn from it. Raises CheckpointError where that run is
    not complete here; StudyError where the studies differ in more than epochs and operational
    settings, so that cases of the test could have been trained on.
    """
    if (run / STUDY).exists():
        return
    finished = study.federation.continues
    if finished:
        state = _continued(study, run, run.parent / finished)
        commit(run / "rounds", state)
        keep_caution(run, kept_caution(run.parent / finished))
        for site in read_withdrawn(run.parent / finished):
            record_change(run, site, "withdraw", log)
        log.write("run-continued", run=run.name, continues=finished, rounds=state.rounds)
    write_text(run / STUDY, study_toml(study))


def _continued(study: Study, run: Path, before: Path) -> CommittedRound:
    """The state that the run begins with. before: folder of the finished run."""
    state = last_committed(before / "rounds", before.name)
    if state is None or state.schedule is None or not state.complete:
        raise CheckpointError(
            f"federation.continues: run {before.name} is not complete on this server; complete it, "
            "or give the id of a complete one"
        )
    earlier = parse_study(read_toml(before / STUDY, "study"), str(before / STUDY))
    if _comparable(earlier) != _comparable(study):
        raise StudyError(
            f"federation.continues: the study differs from that of run {before.name} in more than "
            "train.epochs; make the new study with gliofed extend"
        )
    schedule = longer_schedule(study, state.schedule)
    if schedule.rounds <= state.rounds:
        raise StudyError(
            f"train.epochs: gives {schedule.rounds} rounds, and run {before.name} has "
            f"{state.rounds} already; give more epochs"
        )
    return dataclasses.replace(state, run=run.name, schedule=schedule, counts={})


def _comparable(study: Study) -> Study:
    """The study without what may differ in a run that continues another."""
    plain = with_default_operations(study)
    federation = dataclasses.replace(plain.federation, continues="")
    train = dataclasses.replace(plain.train, epochs=1)
    return dataclasses.replace(plain, name="", train=train, federation=federation)
