"""Convert one patient's series, check them and add the subject to the hospital folder."""

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
from gliofed.dicom.frames import write_slices
from gliofed.dicom.geometry import affine_of, in_order, reoriented, stack_of
from gliofed.dicom.headers import DicomHeader
from gliofed.errors import DataError
from gliofed.ingest.bids_hospital import (
    add_participant,
    image_path,
    is_partial,
    partial_folder,
    person_cells,
    remove_image,
    write_image,
)
from gliofed.ingest.blank_patients import GIVEN, OPTION
from gliofed.ingest.contrast_pixels import CONTRASTS, contradicted, undecided_contrast
from gliofed.ingest.plan import PatientPlan, SeriesPlan, SeriesStatus, StudyPlan
from gliofed.ingest.pseudonyms import PseudonymLink, read_links, replace_links
from gliofed.ingest.series import DicomSeries, SeriesFault
from gliofed.runtime.progress import ProgressCounter
from gliofed.types import Sequence

MAX_OFFSET_VOXELS: Final = 0.5
"""Largest distance, in voxels, of a converted corner from its place by the headers."""


UNORDERED: Final = (
    "its studies cannot be ordered: a date is missing, or two are the same; write skip, in rows of "
    "decisions.tsv made from series.tsv, for every series of the studies that are not preoperative"
)


class PatientStatus(StrEnum):
    """The result of one patient."""

    WRITTEN = "written"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    UNDECIDED = "needs a decision"
    REFUSED = "not written"
    UNUSABLE = "no usable series"


@dataclass(frozen=True)
class PatientOutcome:
    """The result of one patient. sessions: StudyInstanceUID to "", "ses-01", ..."""

    plan: PatientPlan
    status: PatientStatus
    sessions: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class IngestFolders:
    """out: the hospital folder. links: links.tsv. work: a private folder for temporary files."""

    out: Path
    links: Path
    work: Path

    def subject(self, pseudonym: str) -> Path:
        """The folder of one subject."""
        return self.out / f"sub-{pseudonym}"


def write_patient(
    plan: PatientPlan, folders: IngestFolders, counter: ProgressCounter
) -> PatientOutcome:
    """Convert and write the sequences that are not in the hospital folder yet.

    counter: one step a series. A series that cannot be converted is marked as faulty in the plan
    of the result. Raises DataError where a table of the site is damaged.
    """
    studies = [s for s in plan.studies if s.relevant]
    if not studies:
        return PatientOutcome(plan, PatientStatus.UNUSABLE, {})
    links = [link for link in read_links(folders.links) if link.pseudonym == plan.pseudonym]
    if folders.subject(plan.pseudonym).exists():
        return _update(plan, studies, links, folders, counter)
    return _create(plan, studies, folders, counter)


def _create(
    plan: PatientPlan,
    studies: list[StudyPlan],
    folders: IngestFolders,
    counter: ProgressCounter,
) -> PatientOutcome:
    first = next((s for s in studies if s.selected), None)
    if first is None or any(s.date < first.date for s in studies if not s.selected):
        return _undecided(plan, {}, len(studies) > 1)
    studies = [s for s in studies if s.selected]
    several = len(studies) > 1
    if several and not _can_be_ordered(studies):
        return PatientOutcome(plan, PatientStatus.UNDECIDED, {}, UNORDERED)
    sessions = {s.uid: f"ses-{n:02d}" if several else "" for n, s in enumerate(studies, start=1)}
    part = partial_folder(folders.out, plan.pseudonym)
    shutil.rmtree(part, ignore_errors=True)
    links: list[PseudonymLink] = []
    for study in studies:
        for sequence, series_plan in study.selected.items():
            path = image_path(part, plan.pseudonym, sessions[study.uid], sequence)
            fault = _convert(series_plan.series, sequence, path, folders.work)
            counter.step("series")
            if fault is None:
                links.append(_link(plan, sessions, series_plan, sequence))
            else:
                plan = _with_fault(plan, series_plan, fault)
        paths = {
            q: image_path(part, plan.pseudonym, sessions[study.uid], q) for q in study.selected
        }
        plan, removed = _without_contradicted(plan, study, paths)
        links = [k for k in links if (k.study_uid, k.sequence) not in removed]
    if {link.study_uid for link in links} != set(sessions):
        shutil.rmtree(part, ignore_errors=True)
        return _undecided(plan, sessions, several)
    age, sex = person_cells(next(iter(studies[0].selected.values())).series.first)
    # Readers need the tables first; the rename publishes the subject.
    replace_links(folders.links, plan.pseudonym, links)
    add_participant(folders.out, plan.pseudonym, age, sex)
    part.rename(folders.subject(plan.pseudonym))
    return PatientOutcome(plan, PatientStatus.WRITTEN, sessions, _session_note(several))


def _update(
    plan: PatientPlan,
    studies: list[StudyPlan],
    known_links: list[PseudonymLink],
    folders: IngestFolders,
    counter: ProgressCounter,
) -> PatientOutcome:
    """Add sequences to a subject that exists; studies that it was not made from are refused."""
    folder = folders.subject(plan.pseudonym)
    sessions = {link.study_uid: link.session for link in known_links}
    studies = [s for s in studies if s.selected]
    if any(s.uid not in sessions for s in studies):
        note = _other_study_note(folder.name, studies[0])
        return PatientOutcome(plan, PatientStatus.REFUSED, {s.uid: "" for s in studies}, note)
    links = {(link.study_uid, link.sequence): link for link in known_links}
    part = partial_folder(folders.out, plan.pseudonym)
    status, notes = PatientStatus.UNCHANGED, []
    for study in studies:
        paths, new = {}, {}
        for sequence, series_plan in study.selected.items():
            place = (plan.pseudonym, sessions[study.uid], sequence)
            paths[sequence] = image_path(folder, *place)
            counter.step("series")
            link = _link(plan, sessions, series_plan, sequence)
            if paths[sequence].exists():
                if links.get((study.uid, sequence.value)) != link:
                    notes.append(
                        f"{sequence.value} exists from another series; move {folder.name} away "
                        "to create it again"
                    )
                continue
            new[study.uid, sequence.value] = link
            paths[sequence] = image_path(part, *place)
            fault = _convert(series_plan.series, sequence, paths[sequence], folders.work)
            if fault is not None:
                plan = _with_fault(plan, series_plan, fault)
        plan, _ = _without_contradicted(plan, study, paths)
        made = {k: v for k, v in new.items() if paths[Sequence(k[1])].exists()}
        if made:
            links |= made
            replace_links(folders.links, plan.pseudonym, links.values())
            _publish(part, folder)
            status = PatientStatus.UPDATED
    note = "; ".join(notes) or _session_note(len(set(sessions.values())) > 1)
    return PatientOutcome(plan, PatientStatus.REFUSED if notes else status, sessions, note)


def _other_study_note(subject: str, study: StudyPlan) -> str:
    """Why a study is not added to a subject that was made without it, with the cures."""
    note = (
        f"{subject} exists without this study; if it is a follow-up, write skip in decisions.tsv "
        "for its series, named in series.tsv; else move "
        f"{subject} away and run `gliofed intake` on all studies of the patient at once"
    )
    if study.series_plans[0].series.first.patient.issuer == GIVEN:
        note += f"; if it is of another patient, give another name with {OPTION}"
    return note


def _publish(part: Path, folder: Path) -> None:
    """Move new images into the subject's folder, each after its sidecar; `part` is removed."""
    for path in sorted(p for p in part.rglob("*") if p.is_file()):  # .json before .nii.gz
        target = folder / path.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    shutil.rmtree(part)


def _without_contradicted(
    plan: PatientPlan, study: StudyPlan, paths: Mapping[Sequence, Path]
) -> tuple[PatientPlan, frozenset[tuple[str, str]]]:
    """The plan where pixels contradict what headers state of contrast, and what was removed.

    paths: of the converted images; those of T1 and T1CE that were made in this run, below the
    partial folder, are removed, and a person decides. A pair decided by a person is kept.
    """
    pair = {q: paths[q] for q in CONTRASTS if q in paths and paths[q].exists()}
    chosen = [study.selected[q].decision for q in pair]
    fresh = [q for q, path in pair.items() if is_partial(path)]
    if len(pair) < 2 or not fresh or None not in chosen:
        return plan, frozenset()
    why = contradicted(pair[Sequence.T1], pair[Sequence.T1CE])
    if not why:
        return plan, frozenset()
    for q in fresh:
        remove_image(pair[q])
    studies = tuple(undecided_contrast(s, why) if s.uid == study.uid else s for s in plan.studies)
    return replace(plan, studies=studies), frozenset((study.uid, q.value) for q in fresh)


def _convert(series: DicomSeries, sequence: Sequence, path: Path, work: Path) -> SeriesFault | None:
    """Convert one series to `path`, or return the reason. work: emptied before and after."""
    headers = in_order(series.headers)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        slices = [h.path for h in headers]
        if series.joined > 1 or any(h.frame or h.bare for h in headers):
            slices = write_slices(headers, work / "slices")
        image = _with_header_affine(convert(slices, work), headers)
        write_image(path, image.to_bytes(), headers[0], sequence)
    except DataError as error:
        what, _, cure = str(error).partition("; ")
        return SeriesFault(what, cure)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return None


def _with_header_affine(image: Nifti1Image, headers: tuple[DicomHeader, ...]) -> Nifti1Image:
    """The volume with the affine of the headers' first and last slice.

    The converter takes the slice step from two neighbouring slices. Where positions are rounded or
    vary, each slice adds that difference. Raises DataError where shape or position of the volume
    differ by more from the headers.
    """
    plane = headers[0].plane
    assert plane is not None, "checked by `consistency_fault`"
    shape = (plane.columns, plane.rows, len(headers))
    header_affine = affine_of(headers)
    affine, offset_mm = reoriented(header_affine, shape, image.affine, image.shape)
    allowed = MAX_OFFSET_VOXELS * np.linalg.norm(header_affine[:3, :3], axis=0).min()
    if offset_mm > allowed + stack_of(headers).jitter * (len(headers) - 1):
        raise DataError(
            f"converted to {image.shape} voxels {offset_mm:.2f} mm off the {shape} expected from "
            "its headers; export the series again"
        )
    return bare(np.asarray(image.dataobj), affine)


def _link(
    plan: PatientPlan, sessions: Mapping[str, str], series_plan: SeriesPlan, sequence: Sequence
) -> PseudonymLink:
    head = series_plan.series.first
    return PseudonymLink(
        plan.pseudonym,
        sessions[head.study],
        sequence.value,
        head.patient.issuer,
        head.patient.id,
        head.study,
        head.series,
    )


def _with_fault(plan: PatientPlan, series_plan: SeriesPlan, fault: SeriesFault) -> PatientPlan:
    faulty = replace(series_plan, status=SeriesStatus.FAULTY, sequence=None, fault=fault)
    return replace(
        plan,
        studies=tuple(
            replace(
                s, series_plans=tuple(faulty if p is series_plan else p for p in s.series_plans)
            )
            for s in plan.studies
        ),
    )


def _can_be_ordered(studies: list[StudyPlan]) -> bool:
    """Whether every study has a date and no two share date and time."""
    dates = [s.date for s in studies]
    return len(set(dates)) == len(dates) and all(d[:8].isdigit() and len(d) >= 8 for d in dates)


def _undecided(
    plan: PatientPlan, sessions: Mapping[str, str], several_studies: bool
) -> PatientOutcome:
    note = (
        "no series of its earliest study can be used yet; decide on them in decisions.tsv, or "
        "write skip for every series of that study: a follow-up must not be used as the "
        "preoperative study"
        if several_studies
        else "no series can be used yet"
    )
    return PatientOutcome(plan, PatientStatus.UNDECIDED, sessions, note)


def _session_note(several_studies: bool) -> str:
    if not several_studies:
        return ""
    return "several studies: ses-01, the earliest, is used as preoperative; check that it is"
