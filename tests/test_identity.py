"""Ids in normal form, and the salt and tokens that hide them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from gliofed.data.patient_ids import known_ids, normalise_id, read_mapping
from gliofed.errors import DataError
from gliofed.federated.linkage.server import CORNERS
from gliofed.federated.linkage.tokens import TOKENS, FederationSalt, read_salt, study_salt
from gliofed.preprocessing.fingerprint import LENGTH

SALT = study_salt("tests")


# ids


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TCGAFGA60K", "TCGA-FG-A60K"), ("sub-TCGAFGA60K", "tcga_fg_a60k"),
        ("TCGA-FG-A60K-01A-11R", "TCGA-FG-A60K"), ("TCGAFGA60K01A", "TCGA-FG-A60K"),
        ("TCGA020006", "TCGA-02-0006"), ("UCSF-PDGM-004", "UCSF-PDGM-0004"),
        ("ucsf_pdgm 4", "UCSF-PDGM-0004"), ("sub-001", "1"), ("Patient 17", "pt-017"),
        ("  EGD-0001 ", "egd0001"), ("\uff21\uff11", "A1"), ("0", "000"), ("1-23", "01.23"),
    ],
)  # fmt: skip
def test_one_id_however_it_is_written(one, other) -> None:
    assert normalise_id(one) == normalise_id(other)
    assert normalise_id(normalise_id(one)) == normalise_id(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TCGA-FG-A60K", "TCGA-FG-A60L"), ("TCGA-02-0006", "TCGA-20-0006"),
        ("TCGA-02-0006", "TCGA-02-0060"), ("1-23", "12-3"), ("A10", "A1"), ("A1B2", "A12B"),
        ("UCSF-PDGM-4", "UCSF-PDGM-40"), ("subway1", "way1"), ("ptolemy", "olemy"),
        ("TCGA-FG-A60KX", "TCGA-FG-A60K"), ("case-1", "1"),
    ],
)  # fmt: skip
def test_two_ids_stay_two(one, other) -> None:
    assert normalise_id(one) != normalise_id(other)


@pytest.mark.parametrize("text", ["", "  ", "--"])
def test_an_id_of_nothing_is_refused(text) -> None:
    with pytest.raises(DataError, match="no letter or digit"):
        normalise_id(text)


def test_a_mapping_table_makes_two_names_one_patient(tmp_path) -> None:
    path = tmp_path / "name_mapping.csv"
    path.write_text(
        "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID,TCGA_TCIA_subject_ID\n"
        "LGG,BraTS19_1,BraTS20_Training_323,TCGA-HT-7473\nHGG,NA,BraTS20_Training_001,NA\n"
    )
    mapping = read_mapping(path)
    brats, tcga = known_ids("BraTS20_Training_323", mapping), known_ids("TCGAHT7473", {})
    assert brats & tcga
    assert known_ids("BraTS19_01", mapping) == brats
    assert not known_ids("BraTS20_Training_001", mapping) & tcga
    assert not known_ids("BraTS20_Training_324", mapping) & brats  # not in the table
    path.write_text("Grade,ID\nLGG,x\n")
    with pytest.raises(DataError, match="at least two columns"):
        read_mapping(path)


# the salt and its tokens


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_salt_only_its_owner_may_read(tmp_path, mode) -> None:
    path = tmp_path / "salt"
    path.write_text(os.urandom(32).hex() + "\n")
    path.chmod(mode)
    assert len(read_salt(path).secret) == 32
    for wider in (0o640, 0o604, 0o620):
        path.chmod(wider)
        with pytest.raises(DataError, match="chmod 600"):
            read_salt(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [(bytes(range(31)).hex(), "31 bytes"), ("00" * 32, "1 of them distinct"),
     ("password", "hexadecimal"), ("", "0 bytes")],
)  # fmt: skip
def test_a_weak_salt_is_refused(tmp_path, text, message) -> None:
    path = tmp_path / "salt"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(DataError, match=message):
        read_salt(path)
    assert FederationSalt(bytes(range(32)))
    assert "01" not in repr(FederationSalt(bytes(range(32))))


@pytest.mark.slow
def test_tokens_need_the_salt_and_never_compare_between_places() -> None:
    vectors = np.random.default_rng(0).standard_normal((CORNERS, LENGTH)).astype(np.float32)
    found = SALT.image_tokens(vectors, "T1")
    assert found.shape == (CORNERS, TOKENS)
    assert (SALT.image_tokens(vectors * 3, "T1") == found).all()
    for salt, place in ((study_salt("another"), "T1"), (SALT, "T2")):
        assert np.count_nonzero(salt.image_tokens(vectors, place) == found) <= 1
    assert np.count_nonzero(SALT.image_tokens(vectors[::-1].copy(), "T1") == found) <= 1
    assert SALT.id_token("A1") != study_salt("another").id_token("A1")
