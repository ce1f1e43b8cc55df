"""One patient's plan made real: converted, checked, published; or why it waits."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from nibabel.nifti1 import Nifti1Image

from gliofed.dicom.convert import bare, convert
from gliofed.dicom.frames import split_frames
from gliofed.dicom.geometry import affine_of, in_order, reoriented
from gliofed.dicom.headers import DicomHeader
from gliofed.errors import DataError
from gliofed.ingest.bids_hospital import (
    add_participant,
    image_path,
    partial_folder,
    person_cells,
    write_image,
)
from gliofed.ingest.plan import PatientPlan, SeriesPlan, SeriesState, StudyPlan
from gliofed.ingest.pseudonyms import PseudonymLink, read_links, replace_links
from gliofed.ingest.series import DicomSeries, SeriesFault
from gliofed.runtime.progress import ProgressCounter
from gliofed.types import Sequence

OFF: Final = 0.5
"""Voxels; how far a converted corner may lie from where the headers put it."""


UNORDERED: Final = (
    "its studies cannot be put in order, for a date is missing or two are the same; write skip, in "
    "rows made from series.tsv, for every series of those that are not preoperative"
)


class PatientStatus(StrEnum):
    """What became of a patient."""

    WRITTEN = "written"
    ADDED = "added to"
    THERE = "already there"
    WAITS = "waits for a decision"
    REFUSED = "not written"
    NOTHING = "nothing of use"


@dataclass(frozen=True)
class PatientOutcome:
    """What became of a patient. sessions: StudyInstanceUID to "", "ses-01", ..."""

    plan: PatientPlan
    fate: PatientStatus
    sessions: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class IngestFolders:
    """out: the hospital. links: the table. work: a private folder for pieces."""

    out: Path
    links: Path
    work: Path


def write_patient(
    plan: PatientPlan, places: IngestFolders, counter: ProgressCounter
) -> PatientOutcome:
    """Write what is not there yet. counter: steps once for each series.

    A series that cannot be converted is a fault of the plan that comes back. Raises DataError
    only where a table of the site cannot be trusted.
    """
    studies = [s for s in plan.studies if s.matters]
    if not studies:
        return PatientOutcome(plan, PatientStatus.NOTHING, {})
    folder = places.out / f"sub-{plan.pseudonym}"
    own = [link for link in read_links(places.links) if link.pseudonym == plan.pseudonym]
    if folder.exists():
        return _add(plan, studies, folder, own, places, counter)
    return _write(plan, studies, folder, places, counter)


def _write(
    plan: PatientPlan,
    studies: list[StudyPlan],
    folder: Path,
    places: IngestFolders,
    counter: ProgressCounter,
) -> PatientOutcome:
    first = next((s for s in studies if s.taken), None)
    if first is None or any(s.date < first.date for s in studies if not s.taken):
        return _waits(plan, {}, len(studies) > 1)
    studies = [s for s in studies if s.taken]
    several = len(studies) > 1
    if several and not _ordered(studies):
        return PatientOutcome(plan, PatientStatus.WAITS, {}, UNORDERED)
    sessions = {s.uid: f"ses-{n:02d}" if several else "" for n, s in enumerate(studies, start=1)}
    part = partial_folder(places.out, plan.pseudonym)
    shutil.rmtree(part, ignore_errors=True)
    links: list[PseudonymLink] = []
    for study in studies:
        for sequence, verdict in study.taken.items():
            path = image_path(part, plan.pseudonym, sessions[study.uid], sequence)
            fault = _convert(verdict.series, sequence, path, places.work)
            counter.step("series")
            if fault is None:
                links.append(_link(plan, sessions, verdict, sequence))
            else:
                plan = _with_fault(plan, verdict, fault)
    if {link.study_uid for link in links} != set(sessions):
        shutil.rmtree(part, ignore_errors=True)
        return _waits(plan, sessions, several)
    age, sex = person_cells(next(iter(studies[0].taken.values())).series.first)
    # What readers need comes first; the rename makes the subject.
    replace_links(places.links, plan.pseudonym, links)
    add_participant(places.out, plan.pseudonym, age, sex)
    part.rename(folder)
    return PatientOutcome(plan, PatientStatus.WRITTEN, sessions, _check_first(several))


def _add(
    plan: PatientPlan,
    studies: list[StudyPlan],
    folder: Path,
    own: list[PseudonymLink],
    places: IngestFolders,
    counter: ProgressCounter,
) -> PatientOutcome:
    """Sequences decided since; a subject's other studies are never mixed in."""
    sessions = {link.study_uid: link.session for link in own}
    studies = [s for s in studies if s.taken]
    strange = [s for s in studies if s.uid not in sessions]
    if strange:
        note = (
            f"{folder.name} is there without this study; skip its series if it is a follow-up, "
            f"else move {folder.name} away and take in all studies of the patient at once"
        )
        return PatientOutcome(plan, PatientStatus.REFUSED, {s.uid: "" for s in studies}, note)
    links = {(link.study_uid, link.sequence): link for link in own}
    fate, notes = PatientStatus.THERE, []
    for study in studies:
        for sequence, verdict in study.taken.items():
            path = image_path(folder, plan.pseudonym, sessions[study.uid], sequence)
            link = _link(plan, sessions, verdict, sequence)
            was = links.get((study.uid, sequence.value))
            if path.exists():
                if was != link:
                    notes.append(
                        f"{sequence.value} is there from another series; move {folder.name} away "
                        "to build it anew"
                    )
                counter.step("series")
                continue
            links[study.uid, sequence.value] = link
            replace_links(places.links, plan.pseudonym, links.values())
            fault = _convert(verdict.series, sequence, path, places.work)
            counter.step("series")
            if fault is None:
                fate = PatientStatus.ADDED
            else:
                plan = _with_fault(plan, verdict, fault)
    note = "; ".join(notes) or _check_first(len(set(sessions.values())) > 1)
    return PatientOutcome(plan, PatientStatus.REFUSED if notes else fate, sessions, note)


def _convert(series: DicomSeries, sequence: Sequence, path: Path, work: Path) -> SeriesFault | None:
    """Convert one series to `path`, or say why not. work: emptied before and after."""
    headers = in_order(series.headers)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        slices = [h.path for h in headers]
        if headers[0].frame:
            slices = split_frames(headers, work / "frames")
        image = _placed(convert(slices, work), headers)
        write_image(path, image.to_bytes(), headers[0], sequence)
    except DataError as error:
        what, _, cure = str(error).partition("; ")
        return SeriesFault(what, cure)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return None


def _placed(image: Nifti1Image, headers: tuple[DicomHeader, ...]) -> Nifti1Image:
    """The volume under the affine of the headers' first and last slice.

    The converter measures the slice step between two neighbours, and where scanners round
    positions to 1/1000 mm is 0.07 mm off at the end of a head. Raises DataError where the volume
    is not the block of voxels that the headers promise.
    """
    plane = headers[0].plane
    assert plane is not None, "checked by `consistency_fault`"
    promised = (plane.columns, plane.rows, len(headers))
    own = affine_of(headers)
    affine, off = reoriented(own, promised, image.affine, image.shape)
    if off > OFF * np.linalg.norm(own[:3, :3], axis=0).min():
        raise DataError(
            f"converted to {image.shape} voxels {off:.2f} mm off the {promised} that the headers "
            "promise; export the series again"
        )
    return bare(np.asarray(image.dataobj), affine)


def _link(
    plan: PatientPlan, sessions: Mapping[str, str], verdict: SeriesPlan, sequence: Sequence
) -> PseudonymLink:
    head = verdict.series.first
    return PseudonymLink(
        plan.pseudonym,
        sessions[head.study],
        sequence.value,
        head.patient.issuer,
        head.patient.id,
        head.study,
        head.series,
    )


def _with_fault(plan: PatientPlan, verdict: SeriesPlan, fault: SeriesFault) -> PatientPlan:
    spoiled = replace(verdict, state=SeriesState.FAULT, sequence=None, fault=fault)
    return replace(
        plan,
        studies=tuple(
            replace(s, verdicts=tuple(spoiled if v is verdict else v for v in s.verdicts))
            for s in plan.studies
        ),
    )


def _ordered(studies: list[StudyPlan]) -> bool:
    """Whether each study has a date, and no two the same date and time."""
    dates = [s.date for s in studies]
    return len(set(dates)) == len(dates) and all(d[:8].isdigit() and len(d) >= 8 for d in dates)


def _waits(plan: PatientPlan, sessions: Mapping[str, str], several: bool) -> PatientOutcome:
    note = (
        "no series of its earliest study can be taken yet; decide, or write skip for every series "
        "of a study that does not count: a follow-up must not pass for the preoperative study"
        if several
        else "no series can be taken yet"
    )
    return PatientOutcome(plan, PatientStatus.WAITS, sessions, note)


def _check_first(several: bool) -> str:
    if not several:
        return ""
    return "several studies: ses-01, the earliest, is taken as preoperative; a person must check"
