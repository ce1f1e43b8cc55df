import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliofed.errors import StudyError
from gliofed.federation_config import OPERATIONAL
from gliofed.study import load_study, parse_study, study_toml

SOUND = {"name": "s", "data": {"root": "r", "train": ["a"], "external": ["b"]}}


def changed(table: str, **keys: object) -> dict:
    return {**SOUND, table: {**SOUND.get(table, {}), **keys}}


def test_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(StudyError, match=r"train: unknown key 'epoch'.*'epochs'"):
        parse_study(changed("train", epoch=3))
    with pytest.raises(StudyError, match=r"unknown key 'grids'.*'grid'"):
        parse_study({**SOUND, "grids": {}})
    with pytest.raises(StudyError, match=r"unknown marker 'idhh'.*'idh'"):
        parse_study(changed("loss", markers={"idhh": 1.0}))


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"name": "s"}, "missing key 'data'"),
        (changed("train", epochs=1.5), "expected int, found 1.5"),
        (changed("train", epochs=True), "expected int, found True"),
        (changed("data", overlap="maybe"), r"expected one of \['refuse', 'drop'\]"),
        (changed("data", train="a"), "expected a list"),
        (changed("grid", spacing_mm=[1, 2]), "expected 3 values, found 2"),
        (changed("grid", spacing_mm=[1, 2, "thick"]), 'a number or "native"'),
        (changed("grid", spacing_mm=[1, 2, 0]), "above 0 mm"),
        (changed("grid", patch=[15, 16, 16]), "at least 16"),
        (changed("data", external=["a"]), "both train and external"),
        (changed("data", external=[]), "external hospitals, or leave_one_out"),
        (changed("data", leave_one_out=["a"]), "not both"),
        (changed("data", external=[], leave_one_out=["z"]), "not in data.train"),
        (changed("data", holdout=1.0), "below 1"),
        (changed("train", lr=0.0), "above 0"),
        ({**SOUND, "seeds": [1, 1]}, "each must differ"),
        (changed("loss", markers={"idh": -1}), "at least 0"),
        (changed("score", bootstrap=99), "at least 100"),
        ({**SOUND, "train": 3}, "expected a table"),
        (changed("data", formats={"c": "bids"}), r"data.formats: \['c'\] are in neither"),
        (changed("data", formats={"a": 3}), "expected str, found 3"),
        (changed("data", formats="bids"), "expected a table of names"),
        ({**SOUND, "models": []}, "models: name at least one"),
        ({**SOUND, "models": ["age"]}, "expected one of"),
        ({**SOUND, "models": ["radiomics"]}, "data.features: models of radiomics need it"),
        ({**SOUND, "models": ["radiomics_combat"]}, "data.features: models of radiomics"),
        ({**SOUND, "models": ["parent", "age_sex"]}, '"parent" is a comparison'),
        (
            {**SOUND, "models": ["pooled", "parent"], "net": {"preset": "parent"}},
            '"parent" would repeat "pooled"',
        ),
    ],
)
def test_a_setting_at_odds_is_named(study: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study(study)


def test_bounds_hold_on_their_other_side() -> None:
    parse_study(changed("grid", patch=[16, 16, 16]))
    parse_study(changed("score", bootstrap=100))
    parse_study(changed("data", holdout=0.0))
    parse_study(changed("loss", markers={"idh": 0}))
    parse_study({**SOUND, "models": ["age_sex"]})
    parse_study({**changed("data", features=["f.csv"]), "models": ["radiomics"]})
    parse_study({**SOUND, "models": ["alone", "parent"], "net": {"stem": [1, 1, 1]}})


def test_written_out_and_read_back_it_is_the_same() -> None:
    native = {**SOUND, "prepare": {"space": "scanner"}}
    study = parse_study({**native, "grid": {"spacing_mm": [1.5, 1.5, "native"]}})
    assert parse_study(tomllib.loads(study_toml(study))) == study
    with_stem = parse_study(changed("net", stem=[2, 2, 1]))
    assert parse_study(tomllib.loads(study_toml(with_stem))) == with_stem


def test_digest_follows_settings_but_not_the_folder() -> None:
    study = parse_study(SOUND)
    moved = dataclasses.replace(
        study, data=dataclasses.replace(study.data, root=study.data.root / "x")
    )
    longer = parse_study(changed("train", epochs=31))
    assert study.digest == moved.digest != longer.digest
    featured = parse_study(changed("data", features=["f.csv"]))
    assert parse_study(tomllib.loads(study_toml(featured))) == featured
    assert featured.digest == study.digest != parse_study({**SOUND, "models": ["age_sex"]}).digest


def test_settings_of_the_operation_leave_the_digest_as_it_is_and_all_others_change_it() -> None:
    study = parse_study(SOUND)
    for name in OPERATIONAL:
        assert parse_study(changed("federation", **{name: 7})).digest == study.digest
    values = dataclasses.asdict(study.federation)
    for name in values.keys() - set(OPERATIONAL):
        other = dataclasses.replace(study.federation, **{name: "another"})
        assert dataclasses.replace(study, federation=other).digest != study.digest, name


def test_root_is_relative_to_the_file(tmp_path) -> None:
    path = tmp_path / "deep" / "study.toml"
    path.parent.mkdir()
    text = 'name="s"\n[data]\nroot="../data"\ntrain=["a"]\nexternal=["b"]\n'
    path.write_text(f'{text}features=["a.csv", "/b.csv"]\n')
    assert load_study(path).data.root == tmp_path / "data"
    assert load_study(path).data.features == (tmp_path / "deep/a.csv", Path("/b.csv"))
    with pytest.raises(StudyError, match="no such study file"):
        load_study(tmp_path / "absent.toml")
    path.write_text("name =")
    with pytest.raises(StudyError, match="not a TOML file"):
        load_study(path)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(
    st.sampled_from(["name", "data", "train", "root", "loss", "markers", "grid", "x"]), c)))  # fmt: skip
def test_any_table_is_a_study_or_one_clear_error(raw: object) -> None:
    try:
        parse_study(raw)
    except StudyError as error:
        assert str(error).startswith("study")


def test_formats_are_part_of_a_study() -> None:
    plain = parse_study(SOUND)
    ours = parse_study(changed("data", train=["set/a b", "c"], formats={"set": "tcga", "c": "egd"}))
    assert parse_study(tomllib.loads(study_toml(ours))) == ours
    assert ours.data.formats == {"set": "tcga", "c": "egd"}
    assert plain.digest == parse_study(changed("data", formats={})).digest
    named = parse_study(changed("data", formats={"a": "egd"}))
    assert named.digest != plain.digest
    odd = parse_study(changed("data", train=["a b"], formats={"a b": "egd"}))
    assert parse_study(tomllib.loads(study_toml(odd))) == odd
