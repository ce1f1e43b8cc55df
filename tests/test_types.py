import pytest

from gliofed.markers import MARKERS
from gliofed.types import UNKNOWN, Labels, Stat


def test_unknown_is_no_truth_value() -> None:
    with pytest.raises(TypeError):
        bool(UNKNOWN)


def test_labels_read_unknown_where_nothing_is_known() -> None:
    assert Labels({"idh": UNKNOWN, "mgmt": "methylated"}) == Labels({"mgmt": "methylated"})
    assert Labels({})["grade"] is UNKNOWN
    with pytest.raises(TypeError):
        Labels({"idh": "mutant"}).values["idh"] = "wildtype"


def test_stats_merge_as_one_sum() -> None:
    assert (Stat(2, 1) + Stat(1, 2)).mean == 1
    assert Stat().mean is None


@pytest.mark.parametrize("marker", MARKERS, ids=lambda m: m.id)
def test_every_marker_row_is_sound(marker) -> None:
    assert len(set(marker.classes)) == len(marker.classes) >= 2
    assert set(marker.codes.values()) == set(marker.classes)
    assert marker.definition
    assert marker.source
    for absent in ("", "n/a", " NaN ", "Unknown"):
        assert marker.parse(absent) is UNKNOWN
    for wrong in ("-1", "9", "maybe", "indeterminate"):
        with pytest.raises(ValueError, match="none of"):
            marker.parse(wrong)
    for code, value in marker.codes.items():
        assert marker.parse(f" {code.upper()} ") == value
