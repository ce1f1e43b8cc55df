"""The page of one case: complete in itself, exact in its words, left is left."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_up_case import BLOB, EXPLAINED, PASSES, SHAPE, make_case
from nibabel.affines import apply_affine
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)
from PIL import Image
from test_report import HOSTILE, RESEARCH, Reader

from gliofed.calibration.cns5 import NOT_DETERMINABLE, OUTCOMES, UNSEEN, IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.errors import DataError
from gliofed.inference import answer_files
from gliofed.inference.case_content import with_scan_volume
from gliofed.inference.mask_export import ExportedMask
from gliofed.inference.native_grid import THRESHOLD
from gliofed.markers import BY_ID
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.case import tables
from gliofed.reporting.case.answer_text import left_out_sequences
from gliofed.reporting.case.content import OUTLINED, CaseContent
from gliofed.reporting.case.page import LICENCES, VIEWER, render_case, write_case_page
from gliofed.reporting.case.slices import display_centre, sequence_slices
from gliofed.reporting.case.volumes import (
    LEAST_DEVIATION,
    LINE,
    MOST_DEVIATION,
    STEPS,
    WINDOW,
    brain,
    greys,
    in_ras,
    viewer_volumes,
)
from gliofed.reporting.plots.style import Picture
from gliofed.runtime.templates import packaged_text
from gliofed.types import SEQUENCES, Sequence

VENDOR = Path(__file__).parents[1] / "src/gliofed/reporting/html/vendor"
TURNS = ("RAS", "LPS", "PIR", "SLA")


@pytest.fixture(scope="module")
def content() -> CaseContent:
    return make_case()


@pytest.fixture(scope="module")
def page(content: CaseContent) -> str:
    """With its pictures."""
    return render_case(content)


@pytest.fixture
def words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with the words of their pictures only: drawing them takes a second."""
    picture = "gliofed.reporting.case.slices.raster_picture"
    monkeypatch.setattr(picture, lambda figure, alt, dpi: Picture("data:,", alt, 9, 9))


@pytest.fixture
def bare(words_alone: None) -> CaseContent:
    """One sequence, one pass, nothing outlined, no calibration, nothing explained."""
    case = make_case(sequences=(Sequence.T2,))
    markers = [
        dataclasses.replace(m, low=None, high=None, prediction_set=None, confident=None)
        for m in case.markers
    ]
    return dataclasses.replace(
        case, probability=np.zeros(SHAPE, np.float32), deviation=None, volume_ml=0.0,
        volume_range_ml=None, passes="", intervals="", markers=tuple(markers), occlusions=(), occlusion_method="",
    )  # fmt: skip


def volume(page: str, name: str) -> nib.Nifti1Image:
    """One of the volumes inside a page, as any reader of NIfTI has it."""
    data = re.search(rf'<script type="application/gzip" id="{name}">(.*?)</script>', page)[1]
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))


def turned(content: CaseContent, codes: str) -> CaseContent:
    """The same case as another scanner might have stored it."""
    axes = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return dataclasses.replace(
        content,
        images={s: apply_orientation(i, axes) for s, i in content.images.items()},
        affine=content.affine @ inv_ornt_aff(axes, SHAPE),
        probability=apply_orientation(content.probability, axes),
        deviation=apply_orientation(content.deviation, axes),
        occlusions=tuple(
            dataclasses.replace(w, regions=apply_orientation(w.regions, axes))
            for w in content.occlusions
        ),
    )


def pixels(picture: Picture) -> np.ndarray:
    """(rows, columns, 3)."""
    data = base64.b64decode(picture.src.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def of_line(shown: np.ndarray) -> np.ndarray:
    """Where an image has the colour of the outline."""
    wanted = [int(LINE[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(shown - wanted).max(-1) < 40


# What is inside


def test_it_asks_nothing_of_any_network(page: str) -> None:
    reader = Reader(page)
    for _, attrs in reader.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in reader.tags}
    policy = next(m["content"] for m in reader.all("meta") if "http-equiv" in m)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        f"'sha256-{digests[0]}' 'sha256-{digests[1]}'; base-uri 'none'; form-action 'none'"
    )
    assert scripts == [packaged_text(VIEWER), packaged_text("reporting/case/case.js")]


def test_the_viewer_is_the_one_that_its_notes_name() -> None:
    notes = (VENDOR / "README.md").read_text()
    script = (VENDOR / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() in notes
    (version,) = re.findall(r"NiiVue (\d+\.\d+\.\d+)", notes)
    assert f"NiiVue {version}, unchanged" in packaged_text(LICENCES)
    assert f'"{version}"'.encode() in script
    assert b"</script" not in script  # inside HTML it would end there
    assert b"<!--" not in script


def test_licences_stand_in_the_page(page: str) -> None:
    seen = Reader(page).seen
    assert "BSD 2-Clause License" in seen
    assert "Copyright (c) 2021, Niivue" in seen


def test_every_control_has_a_name_and_headings_do_not_skip(page: str) -> None:
    reader = Reader(page)
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in reader.all("a")} <= set(ids)
    named = {label["for"] for label in reader.all("label") if "for" in label}
    inputs = [i for i in reader.all("input") if i["type"] == "range"] + reader.all("select")
    assert {i["id"] for i in inputs} == named
    assert len(inputs) == 3 + 2 + 1 + 1 + 1
    boxes = [i["id"] for i in reader.all("input") if i["type"] == "checkbox"]
    for box in boxes:
        assert re.search(rf'<label class="check"><input type="checkbox" id="{box}"[^>]*> \w', page)
    assert sorted(boxes) == ["crosshair", "outline"]
    levels = [int(t[1]) for t, _ in reader.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(th.get("scope") in {"col", "row"} for th in reader.all("th"))
    assert all(len(i["alt"]) > 40 for i in reader.all("img"))


def test_equal_contents_give_equal_bytes_and_faults_leave_the_old_page(
    content: CaseContent, page: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "case.html"
    write_case_page(content, path)
    assert path.read_text(encoding="utf-8") == page
    assert [p.name for p in path.parent.iterdir()] == ["case.html"]
    hole = np.where(np.arange(SHAPE[0])[:, None, None] == 3, np.nan, content.images[Sequence.T1])
    why = dataclasses.replace(content.occlusions[0], regions=content.occlusions[0].regions[1:])
    for change, told in (
        ({"images": {**content.images, Sequence.T1: hole}}, "T1, .*finite"),
        ({"images": {}}, "no sequence"),
        ({"occlusions": (why,)}, "what idh rests on, .*39.*of the shape of the probability, .*40"),
        ({"deviation": content.probability[..., 0]}, "the deviation"),
        ({"affine": np.diag([1.0, 0, 1, 1])}, "affine is singular"),
    ):
        with pytest.raises(DataError, match=f"leiden/sub-017.*{told}"):
            write_case_page(dataclasses.replace(content, **change), path)
    assert path.read_text(encoding="utf-8") == page


# Where things lie


def test_the_embedded_outline_lies_on_the_blob_and_left_is_left(
    content: CaseContent, page: str
) -> None:
    outline, flair = volume(page, "volume-outline"), volume(page, "volume-FLAIR")
    for image in (outline, flair):
        assert image.get_data_dtype() == np.uint8
        assert image.header["sform_code"] == 4  # MNI
        assert np.allclose(image.affine, content.affine)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    codes = np.asarray(outline.dataobj)
    assert np.array_equal(codes, content.probability >= 0.5)
    middle = apply_affine(outline.affine, np.argwhere(codes).mean(0))
    assert np.allclose(middle, apply_affine(content.affine, BLOB), atol=0.5)
    assert np.array_equal(np.sign(middle), [-1, 1, 1])  # left, front, top
    grey = np.asarray(flair.dataobj).astype(float)
    inside = brain(content)
    assert grey[codes > 0].min() > np.percentile(grey[inside & (codes == 0)], 95)
    bright = apply_affine(flair.affine, np.argwhere(grey > 0.9 * grey.max()).mean(0))
    assert np.linalg.norm(bright - middle) < 8


@pytest.mark.parametrize("codes", TURNS)
def test_however_it_was_stored_the_volumes_are_the_same(content: CaseContent, codes: str) -> None:
    other = turned(content, codes)
    assert nib.aff2axcodes(other.affine) == tuple(codes)
    back = in_ras(other)
    assert np.allclose(back.affine, content.affine)
    assert np.array_equal(back.probability, content.probability)
    assert display_centre(back) == display_centre(content)
    assert viewer_volumes(back, display_centre(back)) == viewer_volumes(
        content, display_centre(content)
    )


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_slices_show_the_outline_on_the_blob(content: CaseContent, codes: str) -> None:
    case = in_ras(turned(content, codes))
    one = dataclasses.replace(case, images={Sequence.FLAIR: case.images[Sequence.FLAIR]})
    ((name, planes),) = [
        (s.sequence, dict(s.planes)) for s in sequence_slices(one, display_centre(one))
    ]
    assert name == "FLAIR"
    x, y, z = ((b + 0.5) / n for b, n in zip(BLOB, SHAPE, strict=True))
    expected = {"axial": (1 - y, 1 - x), "coronal": (1 - z, 1 - x), "sagittal": (1 - z, 1 - y)}
    for plane, place in expected.items():  # (down, to the right) as shares of the picture
        shown = pixels(planes[plane])
        line = np.argwhere(of_line(shown))
        assert np.allclose(line.mean(0) / shown.shape[:2], place, atol=0.02), plane
        bright = np.argwhere(shown.min(-1) > 230)
        bright = bright[np.abs(bright[:, 0] / shown.shape[0] - 0.5) > 0.05]  # not the letters
        assert np.allclose(bright.mean(0) / shown.shape[:2], place, atol=0.03), plane
    assert "patient's right on the left of the image" in planes["axial"].alt
    assert "front on the left of the image" in planes["sagittal"].alt


def test_the_page_begins_within_the_outline(content: CaseContent, page: str) -> None:
    told = json.loads(re.search(r'id="config">(.*?)</script>', page)[1])
    at = display_centre(content)
    assert content.probability[at] >= OUTLINED
    assert np.allclose(told["start"], apply_affine(content.affine, at))
    assert told["shape"] == list(SHAPE)
    assert [i["title"] for i in told["images"]] == ["FLAIR", "T2", "T1CE", "T1"]
    for identity in (*(i["id"] for i in told["images"]), *(o["id"] for o in told["overlays"])):
        assert volume(page, identity).shape == SHAPE
    assert len(told["overlays"]) == 1 + len(content.occlusions)


# What the codes mean


def test_greys_keep_the_brain_apart_from_what_is_outside() -> None:
    inside = np.zeros((10, 10, 10), bool)
    inside[1:] = True
    image = np.where(inside, np.linspace(-3, 5, 1000).reshape(inside.shape), 0).astype(np.float32)
    codes = greys(image, inside)
    assert (codes[~inside] == 0).all()
    assert codes[inside].min() == 1
    assert codes[inside].max() == 255
    low, high = np.percentile(image[inside], WINDOW)
    between = inside & (image > low) & (image < high)
    expected = 1 + 254 * (image[between] - low) / (high - low)
    assert np.abs(codes[between] - expected).max() <= 0.51
    assert (greys(np.zeros_like(image), inside)[inside] == 1).all()  # constant: no contrast
    assert not greys(image, np.zeros_like(inside)).any()


def test_uncertainty_and_regions_come_back_as_they_were(content: CaseContent, page: str) -> None:
    deviation = volume(page, "volume-deviation").get_fdata()
    assert np.abs(deviation - content.deviation).max() <= MOST_DEVIATION / 255
    assert LEAST_DEVIATION < content.deviation.max() < MOST_DEVIATION
    for number, why in enumerate(content.occlusions):
        found = volume(page, f"volume-why-{number}").get_fdata()
        within = np.where(brain(content), why.regions, 0)
        assert np.abs(found - within).max() <= 0.51 * np.abs(within).max() / STEPS
        assert found.max() > 0 > found.min()
        assert np.abs(found[~brain(content)]).max() < 1e-6


@pytest.mark.parametrize(
    ("chance", "within"), [(0.5, True), (np.nextafter(np.float32(0.5), 0), False)]
)
def test_the_outline_begins_at_one_half(chance: float, within: bool) -> None:
    case = make_case(probability=np.full(SHAPE, chance, np.float32))
    assert (viewer_volumes(case, display_centre(case)).outline is not None) is within
    assert OUTLINED == THRESHOLD


# What is said


def test_banners(content: CaseContent, page: str, words_alone: None) -> None:
    seen = Reader(page).seen
    assert RESEARCH in seen
    assert seen.index(RESEARCH) < seen.index("Prediction at a glance")
    assert UNSEEN in seen
    assert "synthetic phantoms" not in seen
    source = dataclasses.replace(content.source, synthetic=True)
    drawn = Reader(render_case(dataclasses.replace(content, source=source))).seen
    assert "The model was trained on synthetic phantoms only, not on patients." in drawn
    assert "no patient. Figures show" not in drawn  # this one may be of a patient


def test_figures_ranges_and_model_are_shown(content: CaseContent, page: str) -> None:
    seen = Reader(page).seen
    for text in (
        content.case, content.source.name, content.source.id, content.written, "34.2 ml (31.0 to 38.5 ml)",
        content.source.trained, content.source.tested, content.source.calibrated, EXPLAINED,
        "0.83 (0.71 to 0.90)", "Not determinable", content.integrated.reason, "falls by 0.21",
        "rises by 0.03", *(BY_ID[m.marker].title for m in content.markers),
    ):  # fmt: skip
        assert text in seen
    assert seen.count(PASSES) == 2
    assert "It is not a confidence interval" in seen
    foot = page.split("@bottom-left {")[1].split("}", maxsplit=1)[0]  # of each printed page
    assert RESEARCH_USE_ONLY in foot
    assert "distances and sizes on these images are not the patient's" in seen
    assert "not calibrated" not in seen.lower()


def test_bars_are_as_long_as_the_probabilities(content: CaseContent, page: str) -> None:
    shares = [float(s) for s in re.findall(r'<rect class="share" width="([\d.]+)"', page)]
    chances = [content.integrated.probabilities[o] for o in OUTCOMES]
    chances += [p for m in content.markers for p in m.probabilities]
    assert shares == pytest.approx([100 * p for p in chances])
    spans = re.findall(r'<path class="span" d="M([\d.]+) 5H([\d.]+)M', page)
    ends = [
        end for m in content.markers for pair in zip(m.low, m.high, strict=True) for end in pair
    ]
    assert [float(end) for span in spans for end in span] == pytest.approx([100 * e for e in ends])
    left = len(content.integrated.open) + sum(len(m.prediction_set) for m in content.markers)
    assert page.count('<tr class="out">') == len(shares) - left


EVERY = (
    "Every class is ruled out: each probability is lower than in nearly all calibration cases of "
    "that class."
)


@pytest.mark.parametrize(
    ("marker", "prediction_set", "confident", "statement", "reason"),
    [
        ("idh", ("wildtype", "mutant"), True, "undetermined", "Neither class is ruled out."),
        ("idh", ("wildtype", "mutant"), False, "undetermined", "Neither class is ruled out."),
        (
            "idh", ("mutant",), True, "mutant",
            "Ruled out: wildtype. The prediction is above the confidence threshold.",
        ),
        (
            "idh", ("mutant",), False, "undetermined",
            "Ruled out: wildtype, but the prediction is not above the confidence threshold.",
        ),
        (
            "idh", ("wildtype",), True, "undetermined",
            "Ruled out: mutant, which holds the most probable class.",
        ),
        ("idh", (), True, "undetermined", EVERY),
        ("grade", ("2", "3", "4"), True, "undetermined", "No class is ruled out."),
        ("grade", ("2", "4"), True, "undetermined", "Ruled out: 3. Not separated: 2 and 4."),
        (
            "grade", ("4",), True, "4",
            "Ruled out: 2 and 3. The prediction is above the confidence threshold.",
        ),
        ("idh", None, None, "", ""),
    ],
)  # fmt: skip
def test_a_marker_has_one_statement_by_set_and_confidence_together(
    marker: str,
    prediction_set: tuple[str, ...] | None,
    confident: bool | None,
    statement: str,
    reason: str,
) -> None:
    classes = BY_ID[marker].classes
    rising = tuple((i + 1) / sum(range(len(classes) + 1)) for i in range(len(classes)))
    panel = tables.marker_panel(MarkerAnswer(marker, rising, None, None, prediction_set, confident))
    assert (panel.statement, panel.reason) == (statement, reason)
    assert [b.open for b in panel.bars] == [
        None if prediction_set is None else c in prediction_set for c in classes
    ]


def test_an_open_type_is_joined_with_its_probabilities(content: CaseContent) -> None:
    outcomes = dict(zip(OUTCOMES, (0.1, 0.2, 0.68, 0.02), strict=True))
    found = IntegratedType(NOT_DETERMINABLE, outcomes, OUTCOMES[:3], "several types are possible")
    text = tables.type_sentence(found)
    assert text == (
        f"The most probable outcome is {OUTCOMES[2]} (0.68), but no type is stated: several types "
        "are possible."
    )
    assert text in Reader(render_case(dataclasses.replace(content, integrated=found))).seen
    stated = IntegratedType(OUTCOMES[2], outcomes, OUTCOMES[2:3], "")
    assert tables.type_sentence(stated) == ""


def test_without_t2_and_flair_no_volume_is_stated(content: CaseContent) -> None:
    missing = dataclasses.replace(content, missing=(Sequence.T2, Sequence.FLAIR))
    assert tables.volume_text(missing) == "not stated: neither T2 nor FLAIR was used"
    assert "ml" in tables.volume_text(dataclasses.replace(content, missing=(Sequence.FLAIR,)))
    unused = dataclasses.replace(content, missing=(Sequence.FLAIR,), unused=(Sequence.T2,))
    assert tables.volume_text(unused) == tables.NO_VOLUME


def test_sequences_that_the_model_was_not_trained_with_are_named(
    content: CaseContent, words_alone: None
) -> None:
    page = render_case(dataclasses.replace(content, unused=(Sequence.T2,)))
    assert "T2 (not used)" in page
    assert page.count("(not used)") == 1
    assert "Missing: none. Not used: T2." in page
    assert "not used" not in render_case(content)
    assert left_out_sequences((), ()) == ()
    assert left_out_sequences((Sequence.FLAIR,), ()) == ()
    several, neither = left_out_sequences((Sequence.FLAIR,), (Sequence.T1, Sequence.T2))
    assert several == "Not used: T1, T2, since no training case of the model had them"
    assert neither.startswith("Neither T2 nor FLAIR was used: the segmentation is not that of")


def test_images_come_before_the_prediction_and_their_voxels_are_stated(page: str) -> None:
    assert page.index('<section id="images"') < page.index('<section id="answer"')
    assert "The images are resampled to voxels of " in page


def test_the_volume_is_that_of_the_file_and_its_range_holds_it(content: CaseContent) -> None:
    wide = dataclasses.replace(content, volume_ml=124.5, volume_range_ml=(124.0, 125.3))
    files = [
        ExportedMask(None, Sequence.T1, "NIfTI", 119.0, 0.0),
        ExportedMask(None, Sequence.FLAIR, "NIfTI", 121.5, 0.0),
    ]
    found = with_scan_volume(wide, files)
    assert (found.volume_ml, found.volume_range_ml) == (121.5, (121.5, 125.3))
    one_pass = dataclasses.replace(wide, volume_range_ml=None)
    assert with_scan_volume(one_pass, files[1:]).volume_range_ml is None


def test_what_does_not_exist_is_not_available_and_has_no_bar() -> None:
    shown = MarkerAnswer("idh", (math.nan, 1.2), (math.nan, 0.9), (math.nan, 1.3), (), False)
    none, over = tables.marker_panel(shown).bars
    assert (none.value, none.share, none.low) == ("n/a", None, None)
    assert (over.share, over.low, over.high) == (100, 90, 100)
    unknown = IntegratedType("not determinable", None, (), "a probability is not finite")
    assert {(b.value, b.share) for b in tables.outcome_bars(unknown)} == {("n/a", None)}


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.21, "falls by 0.21"), (-0.031, "rises by 0.03"), (0.004, "changes by less than 0.01"),
     (-0.004, "changes by less than 0.01"), (0.006, "falls by 0.01"), (math.nan, "n/a")],
)  # fmt: skip
def test_falls_in_words(value: float, said: str) -> None:
    assert tables.change_text(value) == said


def test_sequences_that_matter_most_come_first(content: CaseContent) -> None:
    assert tables.occlusion_table(content.occlusions[0]).rows == (
        ("T1", "falls by 0.21"), ("T1CE", "falls by 0.13"),
        ("T2", "falls by 0.05"), ("FLAIR", "rises by 0.03"),
    )  # fmt: skip


def test_a_bare_case_says_what_is_missing(bare: CaseContent) -> None:
    page = render_case(bare)
    seen = Reader(page).seen
    for text in (
        "The segmentation is empty: the probability of tumour is below one half everywhere.", "0.0 ml",
        "Missing: T1, T1CE, FLAIR.", "Not calibrated: IDH mutation, 1p/19q co-deletion, MGMT",
        "there is no confidence threshold", "T1CE (missing)",
        "The network was run once", "No occlusion map was computed.", "The middle of the brain".lower(),
    ):  # fmt: skip
        assert text in seen
    for text in (
        "Ruled out",
        "It is not a confidence interval",
        "Opacity of the inside",
    ):
        assert text not in seen
    told = json.loads(re.search(r'id="config">(.*?)</script>', page)[1])
    assert (told["outline"], told["overlays"], len(told["images"])) == ("", [], 1)
    assert "volume-outline" not in page


def test_regions_that_change_nothing_have_no_picture(
    content: CaseContent, words_alone: None
) -> None:
    full = np.full(SHAPE, 0.0099, np.float32)
    flat = dataclasses.replace(content.occlusions[0], regions=full)
    page = render_case(dataclasses.replace(content, occlusions=(flat,)))
    assert "No region changes the probability by 0.01." in Reader(page).seen
    assert "volume-why-0" not in page
    drawn = dataclasses.replace(flat, regions=full + np.float32(0.0002))
    page = render_case(dataclasses.replace(content, occlusions=(drawn,)))
    assert "No region changes it" not in Reader(page).seen
    assert "volume-why-0" in page


def test_what_could_not_be_explained_is_said(content: CaseContent, words_alone: None) -> None:
    why = dataclasses.replace(
        content.occlusions[0],
        probability=None,
        regions=None,
        sequences={},
        notes=("because of this",),
    )
    page = render_case(dataclasses.replace(content, occlusions=(why,)))
    seen = Reader(page).seen
    assert "because of this" in seen
    assert "No region changes it" not in seen
    assert "volume-why-0" not in page


def test_faults_of_the_preparation_are_shown(
    content: CaseContent, page: str, words_alone: None
) -> None:
    fault = "the brain mask has 0.61 L, expected 0.8 to 2.2 L; look at the figure"
    assert "The checks found no problem." in Reader(page).seen
    seen = Reader(render_case(dataclasses.replace(content, quality=(fault,)))).seen
    assert fault in seen
    assert "Every prediction below may be wrong because of them" in seen
    assert seen.index(fault) < seen.index("Prediction at a glance")
    assert "found nothing" not in seen


def test_hostile_names_stay_text(content: CaseContent, words_alone: None) -> None:
    source = dataclasses.replace(
        content.source,
        name=HOSTILE,
        id=HOSTILE,
        trained=HOSTILE,
        tested=HOSTILE,
        calibrated=HOSTILE,
    )
    whys = tuple(dataclasses.replace(w, class_name=HOSTILE) for w in content.occlusions)
    bad = dataclasses.replace(content, case=HOSTILE, source=source, quality=(HOSTILE,), passes=HOSTILE, intervals=HOSTILE,
                              occlusion_method=HOSTILE, written=HOSTILE, occlusions=whys)  # fmt: skip
    page = render_case(bad)
    reader = Reader(page)
    scripts = [s for s in reader.all("script") if "type" not in s]
    assert len(scripts) == 2
    assert len(reader.all("script")) == 2 + 1 + len(SEQUENCES) + 1 + 1 + len(whys)
    assert not any("evil" in image["src"] for image in reader.all("img"))
    assert reader.seen.count(HOSTILE) > 8
    told = json.loads(re.search(r'id="config">(.*?)</script>', page)[1])
    assert HOSTILE in told["overlays"][1]["parts"][0]["meaning"]


def test_maps_are_halved_as_numpy_does() -> None:
    values = np.array(
        [0, 1e-9, 3e-8, 6e-8, 5.9e-5, 6.1e-5, 0.1, 0.33333, 1, -0.2, 65504], np.float32
    )
    np.testing.assert_array_equal(answer_files._half(values), values.astype(np.float16))
