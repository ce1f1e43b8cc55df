"""What a series is taken for, by words and times; and which of several is taken."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytest
from dicom_maker import GE, SIEMENS, Style, Who, classic, save, uid, write_series
from pydicom.config import disable_value_validation

from gliofed.dicom.headers import DicomHeader, PulseTiming, read_headers
from gliofed.ingest.contrast_evidence import StudyContrast, study_contrast
from gliofed.ingest.plan import SeriesStatus, plan_patient
from gliofed.ingest.recognition import exclusion_reason, recognise
from gliofed.ingest.recognition_rules import (
    BY_TIME,
    EXCLUDED,
    MIN_CONFIDENCE,
    WeightingFamily,
    match_timing,
)
from gliofed.ingest.series import find_series
from gliofed.runtime.progress import NO_PROGRESS

NO_CLOCK = StudyContrast()


def headers(tmp_path, *styles, **over):
    for number, style in enumerate(styles, start=1):
        write_series(tmp_path / "in", style, number=number, shape=(4, 4, 10), **over)
    found = find_series(tmp_path / "in", NO_PROGRESS)
    return [s.first for s in found.series]


@disable_value_validation()
def header(style: Style, number: int) -> DicomHeader:
    """Of a series scanned in minute `number`."""
    data = classic(style, Who(), number, "SIEMENS", None)
    data.SOPInstanceUID, data.SpecificCharacterSet = uid(number), "ISO_IR 192"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.dcm"
        save(data, path)
        (read,) = read_headers(path)
    return read


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "T1 axial après"),
        ("ISO_IR 144", "Т1 аксиальный"),
        ("ISO_IR 192", "T1 矢状 断"),
        (["", "ISO 2022 IR 87"], "T1 山田"),
    ],
)
def test_text_is_read_in_the_file_s_own_characters(tmp_path, charset, text) -> None:
    data = classic(SIEMENS["T1"], Who(), 1, "SIEMENS", None)
    data.SOPInstanceUID, data.SpecificCharacterSet = uid(1), charset
    data.SeriesDescription = data.PatientName = text
    save(data, tmp_path / "one.dcm")
    (read,) = read_headers(tmp_path / "one.dcm")
    assert (read.description, read.patient.name) == (text, text)


def series_plans(tmp_path, *styles, spacings=(), **over):
    for number, style in enumerate(styles, start=1):
        extra = {"spacing": spacings[number - 1]} if spacings else {}
        write_series(tmp_path / "in", style, number=number, **{**extra, **over})
    series = find_series(tmp_path / "in", NO_PROGRESS).series
    (study,) = plan_patient("x", series, {}).studies
    return study.series_plans


def named(style: Style, text: str, **over) -> Style:
    return dataclasses.replace(style, description=text, **over)


def timed(kind: str, echo, repetition, inversion=None) -> PulseTiming:
    return PulseTiming(
        tuple(kind.split("\\")),
        (),
        (),
        echo,
        repetition,
        inversion,
        None,
        "2D",
        False,
        None,
        None,
        False,
    )


@pytest.mark.parametrize("style", [*SIEMENS.items(), *GE.items()], ids=str)
def test_two_vendors_protocols(tmp_path, style) -> None:
    name, one = style
    (head,) = headers(tmp_path, one)
    guess = recognise(head, NO_CLOCK)
    assert guess.candidates[0].value == name
    # Nothing tells that a T1 is without contrast but the study's other series.
    assert (guess.confidence >= MIN_CONFIDENCE) == (name != "T1")


@pytest.mark.parametrize(
    ("timing", "weighting"),
    [
        (timed("GR\\IR", 2.98, 2300, 900), WeightingFamily.T1),  # Siemens MPRAGE
        (timed("GR", 3.2, 8.2, 450), WeightingFamily.T1),  # GE BRAVO
        (timed("GR", 3.7, 8.1), WeightingFamily.T1),  # Philips TFE without a TI
        (timed("SE", 11, 600), WeightingFamily.T1),
        (timed("SE\\IR", 24, 2600, 860), WeightingFamily.T1),  # T1-FLAIR
        (timed("IR", 20, 2000, 800), WeightingFamily.T1),  # Philips IR-TSE
        (timed("SE\\IR", 388, 5000, 1800), WeightingFamily.FLAIR),  # SPACE
        (timed("IR", 125, 11000, 2800), WeightingFamily.FLAIR),
        (timed("SE\\IR", 60, 6000, 160), WeightingFamily.OTHER),  # STIR
        (timed("SE", 100, 5000), WeightingFamily.T2),
        (timed("SE", 12, 3000), WeightingFamily.OTHER),  # proton density
        (timed("GR", 20, 600), WeightingFamily.OTHER),  # T2*
        (timed("EP\\SE", 90, 6000), WeightingFamily.OTHER),
        (timed("SE", None, 5000), None),
        (timed("SE", 50, 1400), None),
    ],
)
def test_times_tell_the_weighting(timing, weighting) -> None:
    row = match_timing(timing)
    assert (row.weighting if row else None) is weighting


@pytest.mark.parametrize("row", BY_TIME, ids=lambda r: r.name)
def test_every_row_of_times_holds_inside_its_bounds_and_not_outside(row) -> None:
    kind = row.kind or "SE"
    middle = lambda band, usual: usual if band.high == float("inf") else (band.low + band.high) / 2  # noqa: E731
    echo, repetition = middle(row.echo, 90.0), middle(row.repetition, 2000.0)
    inversion = middle(row.inversion, 1000.0) if row.inverted else None
    kinds = f"{kind}\\IR" if row.inverted else kind
    assert match_timing(timed(kinds, echo, repetition, inversion)) is row
    for band, place in ((row.echo, 0), (row.repetition, 1), (row.inversion, 2)):
        if band.high == float("inf"):
            continue
        for bound, off in ((band.low, -0.5), (band.high, 0.5)):
            times = [echo, repetition, inversion]
            times[place] = bound
            if bound > 0:
                assert match_timing(timed(kinds, *times)) is row, (band, bound)
            times[place] = bound + off
            assert match_timing(timed(kinds, *times)) is not row, (band, bound + off)


@pytest.mark.parametrize(
    ("text", "has"),
    [("t1 KM", True), ("T1 Gd", True), ("t1_se_post", True), ("Ax T1 post contrast", True), ("T1 +C", True),
     ("T1+C", True), ("T1 C+", True), ("t1 mprage mit KM", True), ("T1 GADO", True), ("T1 apres inj", True),
     ("T1 con mdc", True), ("t1c", True), ("T1 MPRAGE w contrast", True),
     ("t1 nativ", False), ("T1 ohne KM", False), ("T1 pre contrast", False), ("T1 w/o contrast", False),
     ("T1 sans gado", False), ("T1 senza mdc", False), ("T1 sin contraste", False), ("T1 non contrast", False),
     ("t1 vor KM", False), ("T1 pre Gd", False), ("T1 without contrast", False),
     ("t1_mprage_sag", None), ("T1 preop", None), ("T1 pre-op", None), ("T1 post-op", None),
     ("T1 pre and post", None)],
)  # fmt: skip
def test_words_of_contrast(tmp_path, text, has) -> None:
    (head,) = headers(tmp_path, named(SIEMENS["T1"], text))
    guess = recognise(head, NO_CLOCK)
    if has is None:
        assert guess.confidence < MIN_CONFIDENCE
        assert {c.value for c in guess.candidates} == {"T1", "T1CE"}
    else:
        assert guess.candidates[0].value == ("T1CE" if has else "T1")
        assert guess.confidence >= MIN_CONFIDENCE


def test_words_of_no_contrast_against_an_agent_are_left_to_a_person(tmp_path) -> None:
    (head,) = headers(tmp_path, named(SIEMENS["T1"], "t1 nativ", agent="Gadovist"))
    guess = recognise(head, NO_CLOCK)
    assert guess.confidence < MIN_CONFIDENCE
    assert "words of no contrast" in guess.reason


@pytest.mark.parametrize("text", ["none", "NO", "n/a", "ohne", ""])
def test_an_agent_field_may_say_none(tmp_path, text) -> None:
    (head,) = headers(tmp_path, named(SIEMENS["T1"], "t1", agent=text))
    assert head.timing.agent is (False if text else None)


def test_order_around_contrast_tells_silent_t1s_apart(tmp_path) -> None:
    silent = named(SIEMENS["T1"], "t1_mprage")
    before, given, after = headers(tmp_path, silent, SIEMENS["T1CE"], silent)
    clock = study_contrast([before, given, after])
    assert recognise(before, clock).candidates[0].value == "T1"
    assert recognise(after, clock).candidates[0].value == "T1CE"
    assert min(recognise(h, clock).confidence for h in (before, after)) >= MIN_CONFIDENCE


def test_the_start_of_contrast_tells_silent_t1s_apart(tmp_path) -> None:
    silent = named(SIEMENS["T1"], "t1_mprage")

    def injected(data, index):
        data.ContrastBolusStartTime = "100200" if data.SeriesNumber == 3 else ""

    one, two, three = headers(tmp_path, silent, silent, SIEMENS["T2"], change=injected)
    clock = study_contrast([one, two, three])
    assert [recognise(h, clock).candidates[0].value for h in (one, two)] == ["T1", "T1"]
    later = dataclasses.replace(two, acquired=clock.injected + 1)
    assert recognise(later, clock).candidates[0].value == "T1CE"


@pytest.mark.parametrize(
    ("name", "text", "best"),
    [("T1", "flair", "T1"), ("FLAIR", "t2_space_dark-fluid", "FLAIR"), ("FLAIR", "AX T2 FLAIR", "FLAIR"),
     ("FLAIR", "TIRM tra", "FLAIR"), ("T2", "t1 se", "T2")],
)  # fmt: skip
def test_times_come_before_words(tmp_path, name, text, best) -> None:
    style = GE[name] if name == "T1" else SIEMENS[name]
    (head,) = headers(tmp_path, named(style, text))
    guess = recognise(head, NO_CLOCK)
    assert guess.candidates[0].value == best
    at_odds = (name, text) in (("T1", "flair"), ("T2", "t1 se"))
    assert (guess.confidence < MIN_CONFIDENCE) == at_odds


def without_times(data, index):
    for name in ("EchoTime", "RepetitionTime", "InversionTime", "ScanningSequence"):
        if name in data:
            delattr(data, name)


@pytest.mark.parametrize(
    ("text", "taken"),
    [("FLAIR", True), ("T1 KM", True), ("T2w", True), ("sag 3D", False), ("T1", False)],
)
def test_words_alone_are_enough_where_there_are_no_times(tmp_path, text, taken) -> None:
    (head,) = headers(tmp_path, named(SIEMENS["T2"], text), change=without_times)
    guess = recognise(head, NO_CLOCK)
    assert (bool(guess.candidates) and guess.confidence >= MIN_CONFIDENCE) == taken


@pytest.mark.parametrize(
    ("text", "types", "reason"),
    [
        ("localizer", (), "localiser"), ("AAHScout", (), "localiser"), ("3-Plane Loc", (), "localiser"),
        ("ep2d_diff_b1000", (), "diffusion"), ("t2 x", ("DERIVED", "PRIMARY", "DIFFUSION", "ADC"), "diffusion"),
        ("t2 x", ("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"), "diffusion"),
        ("perf_dsc", (), "perfusion"), ("t1 x", ("DERIVED", "PRIMARY", "CBV"), "perfusion"),
        ("SWI_Images", (), "susceptibility"), ("t2*_gre", (), "susceptibility"), ("tof_3d", (), "angiography"),
        ("t1_sub", (), "subtracted"), ("t1 x", ("DERIVED", "SECONDARY", "SUBTRACTION"), "subtracted"),
        ("t1 x", ("DERIVED", "SECONDARY", "MPR"), "reformatted"), ("t1 mip", ("DERIVED", "SECONDARY"), "projection"),
        ("t1 x", ("DERIVED", "SECONDARY", "PROJECTION IMAGE"), "projection"), ("t2_stir", (), "fat"),
        ("t2_ciss3d", (), "balanced"), ("csi_slaser", (), "spectroscopy"), ("t1_map", (), "map"),
        ("t1 x", ("ORIGINAL", "PRIMARY", "P", "ND"), "phase"), ("t2_tse_cervical spine", (), "head"),
    ],
)  # fmt: skip
def test_what_is_none_of_the_four_is_left_out_with_its_reason(
    tmp_path, text, types, reason
) -> None:
    style = named(SIEMENS["T2"], text, **({"image_type": types} if types else {}))
    (head,) = headers(tmp_path, style)
    assert reason in exclusion_reason(head)
    assert recognise(head, NO_CLOCK).candidates == ()


def test_no_protocol_that_is_wanted_is_left_out(tmp_path) -> None:
    for style in (*SIEMENS.values(), *GE.values()):
        (head,) = headers(tmp_path / style.description.replace(" ", ""), style)
        assert exclusion_reason(head) == ""
    (head,) = headers(tmp_path, named(SIEMENS["T1CE"], "t1_mpr_sag_KM"))
    assert exclusion_reason(head) == ""  # an original MPRAGE by a short name
    assert len({row.reason for row in EXCLUDED}) == len(EXCLUDED)


def test_a_b_value_is_diffusion(tmp_path) -> None:
    def weighted(data, index):
        data.DiffusionBValue = 1000.0

    (head,) = headers(tmp_path, named(SIEMENS["T2"], "t2"), change=weighted)
    assert "b-value" in exclusion_reason(head)


def test_secondary_images_are_left_to_a_person(tmp_path) -> None:
    (head,) = headers(tmp_path, named(SIEMENS["T2"], "t2", image_type=("DERIVED", "SECONDARY")))
    assert recognise(head, NO_CLOCK).confidence < MIN_CONFIDENCE


T1_2D = Style("", "SE", "SK", 11, 600, None, 90, False)
T1_3D = dataclasses.replace(SIEMENS["T1"], description="")


@pytest.mark.parametrize("agent", ["", "Gadovist"])
@pytest.mark.parametrize(
    ("before", "after"),
    [("3D T1 C-", "T1 TSE TRA C+"), ("T1 3D v. KM", "T1 TSE n. KM"), ("T1 CE-", "T1 CE+"), ("T1 no KM", "T1 KM"),
     ("T1 без КУ", "T1 с КУ"), ("T1 造影前", "T1 造影後"), ("T1 平扫", "T1 增强"), ("T1 bez KL", "T1 po KL")],
)  # fmt: skip
def test_a_3d_before_and_a_2d_after_contrast_are_told_apart(before, after, agent) -> None:
    one = header(named(T1_3D, before, agent=agent), 1)
    two = header(named(T1_2D, after, agent=agent), 2)
    study = study_contrast([one, two, header(named(SIEMENS["T2"], "t2", agent=agent), 3)])
    guesses = [recognise(h, study) for h in (one, two)]
    assert [g.candidates[0].value for g in guesses] == ["T1", "T1CE"]
    assert min(g.confidence for g in guesses) >= MIN_CONFIDENCE


def undecided(*styles: Style) -> list[bool]:
    heads = [header(style, number) for number, style in enumerate(styles, start=1)]
    study = study_contrast(heads)
    return [recognise(h, study).confidence < MIN_CONFIDENCE for h in heads]


@pytest.mark.parametrize("text", ["AX T1 C-", "T1 SE CE-"])
def test_a_negated_word_alone_is_no_contrast(text) -> None:
    assert undecided(named(T1_2D, text)) == [False]
    guess = recognise(header(named(T1_2D, text), 1), NO_CLOCK)
    assert [c.value for c in guess.candidates] == ["T1"]


def test_an_agent_of_every_series_says_nothing_of_one() -> None:
    silent = named(T1_3D, "t1", agent="Gadovist")
    assert undecided(silent, named(SIEMENS["T2"], "t2", agent="Gadovist"))[0]
    assert not undecided(silent, SIEMENS["T2"])[0]  # the T2 lacks it


def test_an_agent_of_every_t1_does_not_decide_the_one_without_words() -> None:
    silent, worded = named(T1_3D, "t1", agent="Gadovist"), named(T1_2D, "t1 km", agent="Gadovist")
    assert undecided(silent, worded, SIEMENS["T2"])[:2] == [True, False]
    assert undecided(worded, silent, SIEMENS["T2"])[:2] == [False, False]  # after it


def test_words_against_the_order_in_time_are_left_to_a_person() -> None:
    pre, post = named(T1_3D, "t1 nativ"), named(T1_2D, "t1 km")
    assert undecided(pre, post) == [False, False]
    assert undecided(post, pre) == [True, True]


def test_a_protocol_of_every_series_says_nothing_of_one() -> None:
    heads = [header(named(T1_3D, d), n) for n, d in enumerate(("t1 sag", "t1 tra"), start=1)]
    heads = [dataclasses.replace(h, protocol="Hirn mit KM") for h in heads]
    assert recognise(heads[0], study_contrast(heads)).confidence < MIN_CONFIDENCE
    assert recognise(heads[0], study_contrast(heads[:1])).confidence >= MIN_CONFIDENCE


T1CE = SIEMENS["T1CE"]
USUAL = (0.9, 1.1, 1.3)


@pytest.mark.parametrize(
    ("one", "two", "spacing", "taken"),
    [
        (named(T1CE, "t1 km tra", three_d=False), T1CE, USUAL, 2),
        (T1CE, named(T1CE, "t1 km", image_type=("DERIVED", "PRIMARY")), USUAL, 1),
        (named(T1CE, "t1 km MOTION"), T1CE, USUAL, 2),
        (T1CE, named(T1CE, "t1 km wdh"), USUAL, 2),
        (T1CE, T1CE, (0.9, 1.1, 1.3 * 1.25), 1),
        (T1CE, T1CE, (0.9, 1.1, 1.3 / 1.25), 2),
        (T1CE, T1CE, (0.9, 1.1, 1.3 * 1.15), None),
        (T1CE, T1CE, USUAL, None),
    ],
)  # fmt: skip
def test_the_clearly_better_of_two_is_taken_else_a_person_decides(
    tmp_path, one, two, spacing, taken
) -> None:
    found = series_plans(tmp_path, one, two, spacings=(USUAL, spacing))
    states = {v.series.first.number: v.status for v in found}
    if taken is None:
        assert set(states.values()) == {SeriesStatus.UNDECIDED}
        assert all("equally good" in v.guess.reason for v in found)
    else:
        assert states == {taken: SeriesStatus.SELECTED, 3 - taken: SeriesStatus.SKIPPED}
        assert (
            f"series {taken} is used as"
            in next(v for v in found if v.status is SeriesStatus.SKIPPED).guess.reason
        )


def test_more_slices_are_better(tmp_path) -> None:
    write_series(tmp_path / "in", T1CE, number=1, shape=(20, 16, 12))
    write_series(tmp_path / "in", T1CE, number=2, shape=(20, 16, 15))
    series = find_series(tmp_path / "in", NO_PROGRESS).series
    (study,) = plan_patient("x", series, {}).studies
    assert [v.status for v in study.series_plans] == [SeriesStatus.SKIPPED, SeriesStatus.SELECTED]


def test_a_doubtful_series_is_not_asked_about_where_others_are_clear(tmp_path) -> None:
    found = series_plans(
        tmp_path, SIEMENS["T2"], named(SIEMENS["T2"], "t2", image_type=("DERIVED", "SECONDARY"))
    )
    assert [v.status for v in found] == [SeriesStatus.SELECTED, SeriesStatus.SKIPPED]
    assert "clear from other series" in found[1].guess.reason


def test_issuer_and_id_name_the_patient(tmp_path) -> None:
    who = Who(extra={"IssuerOfPatientID": "KH"})
    (head,) = headers(tmp_path, SIEMENS["T2"], who=who)
    assert (head.patient.issuer, head.patient.id) == ("KH", who.id)
