"""Features of an outline: those of the reference, unknown where a sequence is, made once."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from conftest import write_hospital
from recorded_progress import RecordedProgress
from typer.testing import CliRunner

from gliofed.cli.main import app
from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.errors import DataError
from gliofed.radiomics import features as room
from gliofed.radiomics import regression
from gliofed.radiomics.feature_table import read_features
from gliofed.radiomics.features import (
    FeatureFolders,
    FeatureSettings,
    case_features,
    extract_features,
    feature_names,
)
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.types import SEQUENCES, Labels, Sequence

# The digital phantom of the Image Biomarker Standardisation Initiative, (x, y, z) from slices
# written as they are printed; 0 is outside. Reference manual, arXiv:1612.07003, chapter 5.
PHANTOM = np.array([
    [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
    [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
    [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
    [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
]).transpose(2, 1, 0)  # fmt: skip
REFERENCE = {  # of the manual, 3D, averaged over directions where there are any
    "shape_MeshVolume": 556, "shape_VoxelVolume": 592, "shape_SurfaceArea": 388,
    "shape_Sphericity": 0.843, "shape_Maximum3DDiameter": 13.1,
    "firstorder_Mean": 2.15, "firstorder_Variance": 3.05, "firstorder_Skewness": 1.08,
    "firstorder_Kurtosis": -0.355 + 3, "firstorder_Energy": 567, "firstorder_Entropy": 1.27,
    "glcm_JointAverage": 2.14, "glcm_Contrast": 5.32, "glcm_JointEntropy": 2.4,
    "glcm_DifferenceAverage": 1.43, "glcm_Correlation": 0.157,
    "glrlm_ShortRunEmphasis": 0.705, "glrlm_LongRunEmphasis": 3.06, "glrlm_RunPercentage": 0.68,
    "glszm_SmallAreaEmphasis": 0.255, "glszm_LargeAreaEmphasis": 550, "glszm_ZonePercentage": 0.0676,
    "ngtdm_Coarseness": 0.0296, "ngtdm_Contrast": 0.584, "ngtdm_Busyness": 6.54,
    "ngtdm_Complexity": 13.5, "ngtdm_Strength": 0.763,
    "gldm_SmallDependenceEmphasis": 0.045, "gldm_LargeDependenceEmphasis": 109,
}  # fmt: skip


@pytest.fixture
def library():
    pytest.importorskip("radiomics", reason="needs the extra gliofed[radiomics]")


@pytest.fixture
def pretended(monkeypatch):
    """A library of three features, and the arrays that it was given."""
    seen = []

    def measure(image, inside, spacing, families, settings):
        seen.append((image, inside, tuple(spacing), tuple(families)))
        own = {
            "firstorder_Mean": float(image[inside].astype(float).mean()),
            "glcm_Contrast": float("nan"),
        }
        return own | ({"shape_Voxels": float(inside.sum())} if "shape" in families else {})

    families = {"shape": ("Voxels",), "firstorder": ("Mean",), "glcm": ("Contrast",)}
    monkeypatch.setattr(room, "_measure", measure)
    monkeypatch.setattr(room, "_families", lambda: dict.fromkeys(room.TEXTURES, ()) | families)
    monkeypatch.setattr(room, "version", lambda name: "3")
    return seen


def phantom(make_prepared, missing=()):
    case = make_prepared("a")
    inside = np.zeros((9, 9, 9), np.uint8)
    inside[2:7, 3:7, 1:5] = PHANTOM > 0
    image = np.full((4, 9, 9, 9), 99.0)
    image[:, 2:7, 3:7, 1:5] = PHANTOM
    for place in missing:
        image[place] = 0
    return dataclasses.replace(
        case,
        image=image.astype(np.float16),
        mask=inside,
        present=tuple(n not in missing for n in range(4)),
        affine=np.diag([2.0, -2, 2, 1]),
    )


def test_the_values_of_the_digital_phantom_are_those_of_the_reference(
    library, make_prepared
) -> None:
    found = case_features(phantom(make_prepared), FeatureSettings(bin_width=1))
    for name, value in REFERENCE.items():
        own = found[name if name.startswith("shape") else f"T2_{name}"]
        assert own == pytest.approx(value, rel=0.006), name
    assert list(found) == list(feature_names())
    assert all(np.isfinite(v) for v in found.values())


def test_every_feature_of_a_missing_sequence_is_unknown_and_no_other(
    library, make_prepared
) -> None:
    whole = case_features(phantom(make_prepared), FeatureSettings(bin_width=1))
    found = case_features(phantom(make_prepared, missing=(0, 2)), FeatureSettings(bin_width=1))
    for name, value in found.items():
        if name.startswith(("T1_", "T2_")):
            assert np.isnan(value), name
        else:
            assert value == whole[name]
    assert len(found) == 14 + 4 * 93


def test_the_bin_width_tells(library, make_prepared) -> None:
    fine = case_features(phantom(make_prepared), FeatureSettings(bin_width=1))
    coarse = case_features(phantom(make_prepared), FeatureSettings(bin_width=10))
    assert coarse["T1_glcm_Contrast"] == 0 < fine["T1_glcm_Contrast"]
    assert coarse["T1_firstorder_Mean"] == fine["T1_firstorder_Mean"]


def test_only_the_outline_and_its_rim_are_measured(pretended, make_prepared) -> None:
    case = phantom(make_prepared)
    found = case_features(case, FeatureSettings())
    assert [image.shape for image, *_ in pretended] == [(7, 6, 6)] * 4
    assert pretended[0][2] == (2, 2, 2)
    assert ["shape" in families for *_, families in pretended] == [True, False, False, False]
    assert found["shape_Voxels"] == 74
    assert found["FLAIR_firstorder_Mean"] == pytest.approx(159 / 74)
    assert max(image.max() for image, *_ in pretended) == 20  # around the phantom there is 99
    given = np.ones((9, 9, 9), np.uint8)
    assert case_features(case, FeatureSettings(), given)["shape_Voxels"] == 729


def test_no_outline_or_too_small_a_one_is_one_clear_reason(pretended, make_prepared) -> None:
    few = FeatureSettings(fewest_voxels=74)
    case = phantom(make_prepared)
    assert case_features(case, few)["shape_Voxels"] == 74
    with pytest.raises(DataError, match="here/a: its mask has 74 voxels, too few"):
        case_features(case, dataclasses.replace(few, fewest_voxels=75))
    with pytest.raises(DataError, match="here/a: its mask has 0 voxels"):
        case_features(case, few, np.zeros((9, 9, 9), np.uint8))
    with pytest.raises(DataError, match="here/a: has no mask"):
        case_features(dataclasses.replace(case, mask=None), few)
    with pytest.raises(DataError, match="give it on the prepared grid"):
        case_features(case, few, np.ones((9, 9, 8), np.uint8))


def stored(tmp_path, make_prepared, **changes):
    """Three cases in a store: a whole one, one without T2, one with an empty outline."""
    shelf = PreparedStore(tmp_path / "store")
    out = []
    for name in ("a", "b", "c"):
        case = make_prepared(name, {"idh": "mutant"}, tumour=name != "c")
        present = tuple(name != "b" or s is not Sequence.T2 for s in SEQUENCES)
        case = dataclasses.replace(case, present=present)
        shelf.put(name, StoreEntry(case.image, case.mask, present, case.affine, {}, None, case.measures,
                              "given", Sequence.T1), {})  # fmt: skip
        out.append(shelf.open(name, case.case))
    return out, shelf.root


def test_cases_are_measured_once_and_those_without_an_outline_are_left_out(
    pretended, make_prepared, tmp_path, monkeypatch
) -> None:
    cases, store = stored(tmp_path, make_prepared)
    progress = RecordedProgress()
    table, left = extract_features(
        cases,
        FeatureFolders(store, tmp_path / "out"),
        FeatureSettings(),
        1,
        progress,
    )
    assert progress.counts == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [s.case for s in table.subjects] == ["a", "b"]
    assert table.subjects[0].labels == Labels({"idh": "mutant"})
    assert table.subjects[1].sequences == set(SEQUENCES) - {Sequence.T2}
    unknown = [n for n, v in zip(table.names, table.values[1], strict=True) if np.isnan(v)]
    assert unknown == ["T1_glcm_Contrast", "T1CE_glcm_Contrast", "T2_firstorder_Mean",
                       "T2_glcm_Contrast", "FLAIR_glcm_Contrast"]  # fmt: skip
    assert [(item.case.id, "0 voxels" in item.reason) for item in left] == [("c", True)]
    measured = len(pretended)
    assert measured == 7
    again, _ = extract_features(
        cases, FeatureFolders(store, tmp_path / "out"), FeatureSettings(), 1, NO_PROGRESS
    )
    assert len(pretended) == measured
    assert np.array_equal(again.values, table.values, equal_nan=True)
    extract_features(
        cases,
        FeatureFolders(store, tmp_path / "out"),
        FeatureSettings(bin_width=0.5),
        1,
        NO_PROGRESS,
    )
    assert len(pretended) == 2 * measured
    for place in (tmp_path / "out" / "cases").iterdir():
        place.write_text("{")
    with pytest.raises(DataError, match="delete it and start again"):
        extract_features(
            cases, FeatureFolders(store, tmp_path / "out"), FeatureSettings(), 1, NO_PROGRESS
        )


def test_side_by_side_is_as_one_after_the_other(library, make_prepared, tmp_path) -> None:
    cases, store = stored(tmp_path, make_prepared)
    one, _ = extract_features(
        cases, FeatureFolders(store, tmp_path / "one"), FeatureSettings(), 1, NO_PROGRESS
    )
    two, left = extract_features(
        cases, FeatureFolders(store, tmp_path / "two"), FeatureSettings(), 2, NO_PROGRESS
    )
    assert np.array_equal(one.values, two.values, equal_nan=True)
    assert len(left) == 1


STUDY = """name = "tiny"
[data]
root = "{root}"
train = ["a"]
external = ["b"]
[grid]
patch = [16, 16, 16]
spacing_mm = [2, 2, 2]
[prepare]
brain = "stripped"
register = false
space = "scanner"
bias = false
[quality]
brain_litres = [0, 9]
alignment = 0
"""


@pytest.mark.process
def test_the_verbs_extract_a_study_and_predict_each_hospital(
    pretended, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(regression, "RIDGES", (10.0,))
    rows = {"x": ("1", "0", "1", "4"), "y": ("0", "0", "0", "2"), "z": ("n/a", "0", "1", "3")}
    for seed, site in enumerate("ab"):
        named = {site + name: row for name, row in rows.items()}
        write_hospital(tmp_path / "data" / site, named, seed)
    study = tmp_path / "tiny.toml"
    study.write_text(STUDY.format(root=tmp_path / "data"))
    done = CliRunner().invoke(app, ["radiomics", "extract", str(study), "--out", str(tmp_path / "f"),
                                    "--store", str(tmp_path / "store"), "--processes", "1"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "6 cases, 0 left out" in done.output
    table = read_features(tmp_path / "f" / "features.csv")
    assert table.sites == ("a", "b")
    told = json.loads((tmp_path / "f" / "settings.json").read_text())
    assert told["settings"] == {"bin_width": 0.25, "fewest_voxels": 64, "farthest": 20}
    done = CliRunner().invoke(app, ["radiomics", "test", str(tmp_path / "f" / "features.csv"),
                                    "--out", str(tmp_path / "t")])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Research use only" in done.output
    with (tmp_path / "t" / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 6
    assert {r["fold"] for r in lines} == {"a", "b"}
    assert {p.name for p in (tmp_path / "t").glob("*.*")} >= {
        "radiomics.json", "radiomics_combat.json", "age_sex.json", "coefficients.csv", "predictions.csv",
    }  # fmt: skip


def test_without_the_library_the_verb_says_so_before_it_prepares(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "radiomics", None)
    done = CliRunner().invoke(app, ["radiomics", "extract", "s.toml", "--out", str(tmp_path / "o")])
    assert done.exit_code == 1
    assert "radiomics is missing; install gliofed[radiomics]" in done.output
    assert not (tmp_path / "o").exists()


def test_a_damaged_table_is_one_line(tmp_path) -> None:
    (tmp_path / "f.csv").write_text("a,b\n1,2\n")
    done = CliRunner().invoke(
        app, ["radiomics", "test", str(tmp_path / "f.csv"), "--out", str(tmp_path)]
    )
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert "DataError" in line
