"""Tables of labels as hospitals and archives save them: read, or refused in one sentence."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import TABLES, TREES

from gliofed import tables
from gliofed.data.formats.fields import LabelField, code_parser, parse_years, read_fields
from gliofed.data.formats.layout import scanner_name
from gliofed.data.formats.registry import FORMATS
from gliofed.errors import DataError
from gliofed.tables import by_id, column, find_table, read_json, read_table
from gliofed.types import UNKNOWN

TEXT = "ID,städ\nA,Malmö\n"


def written(tmp_path: Path, data: bytes | str) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (b"\xef\xbb\xbf" + TEXT.encode(), "utf-8"),
        (TEXT.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("cp1252"), "cp1252"),
    ],
)
def test_encodings(tmp_path, data, encoding) -> None:
    table = read_table(written(tmp_path, data))
    assert (table.columns, table.encoding) == (("ID", "städ"), encoding)
    assert dict(table.rows[0].cells) == {"ID": "A", "städ": "Malmö"}
    assert bool(table.notes) == (encoding == "cp1252")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_line_ends_and_quotes(tmp_path, separator) -> None:
    rows = [["ID", "a b", "c"], ["1", f"x{separator}y", "3,5"], ["2", 'say "no"', "two\nlines"]]
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\r\n").writerows(rows)
    table = read_table(written(tmp_path, out.getvalue() + "\r\n\r\n"))
    assert table.delimiter == separator
    assert [list(r.cells.values()) for r in table.rows] == rows[1:]


def test_one_column_and_a_header_alone(tmp_path) -> None:
    assert read_table(written(tmp_path, "ID\nA\n")).rows[0].cells == {"ID": "A"}
    assert read_table(written(tmp_path, "ID,a\n")).rows == ()


def test_empty_columns_that_a_spreadsheet_appends_are_passed_over(tmp_path) -> None:
    table = read_table(written(tmp_path, "ID,a,,\n1,2,,\n,,,\n"))
    assert table.columns == ("ID", "a")
    assert len(table.rows) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "empty; expected a header"),
        (" \n\n", "empty; expected a header"),
        ("ID,a,A\n1,2,3\n", "column 'A' occurs twice"),
        ("ID,a\n1,2\n3\n", r"t\.csv:3: 1 cells under 2 columns"),
        ("ID,a\n1,2,3\n", r"t\.csv:2: 3 cells under 2 columns"),
        ("ID,,a\n1,5,2\n", "a cell under a column without a name"),
        ('ID,a\n1,"2\n', "save the table again"),
        ('ID,a\n1,"2"x\n', "save the table again"),
        (b"ID,a\n1,\x81\n", "not UTF-8"),
        (b"ID,a\n1,\x00\n", "NUL"),
        ("ID,a\n".encode("utf-16-le"), "NUL"),
        (b"\xff\xfea", "not UTF-8"),
        (b"PK\x03\x04rest", 'save the sheet as "CSV UTF-8"'),
        (b"\xd0\xcf\x11\xe0rest", "a spreadsheet is not read"),
        ("ID,a\n1," + "x" * 200_000 + "\n", "field larger than field limit"),
        (",".join(map(str, range(5_001))) + "\n", "5001 columns"),
    ],
)
def test_what_cannot_be_trusted_is_refused(tmp_path, data, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(written(tmp_path, data))
    assert "t.csv" in str(caught.value)


def test_the_size_limit_holds_on_both_sides(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "MAX_BYTES", 9)
    assert len(read_table(written(tmp_path, "ID,a\n1,2")).rows) == 1
    assert len(read_table(written(tmp_path, "ID,a\n1,22")).rows) == 1
    with pytest.raises(DataError, match="expected a label table"):
        read_table(written(tmp_path, "ID,a\n1,222"))


def test_a_folder_or_nothing_is_no_table(tmp_path) -> None:
    with pytest.raises(DataError, match="no such table"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


def test_columns_are_found_by_any_of_their_names_and_else_the_nearest_is_named(tmp_path) -> None:
    table = read_table(written(tmp_path, "ID,WHO  grade,IDH1\n1,2,3\n"))
    assert column(table, "Grade", "who grade") == "WHO grade"
    with pytest.raises(
        DataError, match=r"no column 'IDH' \(nor 'idh status'\); the nearest is 'IDH1'"
    ):
        column(table, "IDH", "idh status")


def test_ids_are_one_a_row(tmp_path) -> None:
    table = read_table(written(tmp_path, "ID,a\nA,1\nb,2\nNA,3\n"))
    assert list(by_id(table, "ID", str.lower, frozenset({"na"}))) == ["a", "b"]
    with pytest.raises(DataError, match=r":3: b occurs twice \(first in line 2\)"):
        by_id(read_table(written(tmp_path, "ID,a\nB,1\nb,2\n")), "ID", str.lower)
    with pytest.raises(DataError, match=r":2: empty 'ID'"):
        by_id(read_table(written(tmp_path, "ID,a\n,1\n")), "ID", str.lower)


def test_a_table_is_looked_for_by_name_and_a_spreadsheet_says_how_to_export(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no labels_v\*\.csv; get it"):
        find_table(tmp_path, ("labels_v*.csv",), "get it")
    (tmp_path / "labels_v2.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"labels_v2\.xlsx: a spreadsheet is not read; open it"):
        find_table(tmp_path, ("labels_v*.csv",), "get it")
    (tmp_path / "labels_v2.csv").touch()
    assert find_table(tmp_path, ("labels_v*.csv",), "get it").name == "labels_v2.csv"
    (tmp_path / "labels_v3.csv").touch()
    with pytest.raises(DataError, match="more than one"):
        find_table(tmp_path, ("labels_v*.csv",), "get it")


def test_strange_cells_are_told_all_at_once(tmp_path) -> None:
    field = LabelField("idh", ("IDH",), code_parser({"yes": "mutant", "1": "mutant", "?": UNKNOWN}))
    table = read_table(
        written(tmp_path, "IDH,a\nyes,1\nmaybe,1\n1.0,1\n?,1\nn/a,1\nmaybe,1\nso,1\n")
    )
    with pytest.raises(DataError, match=r"'maybe' in 2 rows, line 3: .*; 'so' in 1 rows, line 8"):
        read_fields(table, table.rows, (field,))
    good = tuple(r for r in table.rows if r.cells["IDH"] not in ("maybe", "so"))
    values, mapped = read_fields(table, good, (field,))
    assert [v["idh"] for v in values] == ["mutant", "mutant", UNKNOWN, UNKNOWN]
    assert {(m.raw, m.value, m.count) for m in mapped} == {
        ("yes", "mutant", 1), ("1.0", "mutant", 1), ("?", "unknown", 1), ("n/a", "unknown", 1)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [("44", 44.0), ("52.16", 52.16), ("52,16", 52.16), ("0", 0.0), ("120", 120.0), ("120.1", UNKNOWN),
     ("-1", UNKNOWN), ("", UNKNOWN), ("89+", UNKNOWN), ("1e2", UNKNOWN), ("nan", UNKNOWN),
     ("٤٤", UNKNOWN)],
)  # fmt: skip
def test_ages(text, value) -> None:
    assert parse_years(text) is value if value is UNKNOWN else parse_years(text) == value


@pytest.mark.parametrize(
    ("parts", "line"),
    [(("GE", "Signa", "1.5"), "GE Signa 1.5 T"), (("GE", "", "3T"), "GE 3 T"),
     (("", "n/a", "-1"), UNKNOWN), (("Philips  NV", "x", "?"), "Philips NV x ?")],
)  # fmt: skip
def test_scanner_lines(parts, line) -> None:
    assert scanner_name(*parts) == line


@pytest.mark.parametrize("text", ["[1]", "3", "{", '{"a": 1', "\xff", "[" * 100_000, "nul"])
def test_json_that_is_no_object_is_refused(tmp_path, text) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.json"):
        read_json(path)


CELLS = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from(list(',;\t"\r\n\0\ufeff'))), max_size=12
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.one_of(st.binary(max_size=400), CELLS.map(str.encode),
                      st.lists(st.lists(CELLS, max_size=4), max_size=5)
                      .map(lambda rows: "\n".join(",".join(r) for r in rows).encode())))  # fmt: skip
def test_whatever_the_bytes_only_a_data_error_comes_out(data) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), data)
        try:
            table = read_table(path)
        except DataError as error:
            assert "t.csv" in str(error)
        else:
            assert all(set(table.columns) <= set(r.cells) for r in table.rows)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
                              .map(str.strip).filter(bool), min_size=2, max_size=2), min_size=1, max_size=5),
       separator=st.sampled_from([",", ";", "\t"]), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))  # fmt: skip
def test_what_is_written_is_what_is_read(rows, separator, encoding) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [["ID", "label"], *rows]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), out.getvalue().encode(encoding))
        table = read_table(path)
    assert [list(r.cells.values()) for r in table.rows] == rows


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(form=st.sampled_from(FORMATS), place=st.integers(0, 1000), piece=st.one_of(st.binary(max_size=6), CELLS.map(str.encode)),
       cut=st.integers(0, 8))  # fmt: skip
def test_a_damaged_table_of_a_format_gives_cases_or_one_data_error(form, place, piece, cut) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        TREES[form.id](root)
        path = root / TABLES[form.id][0]
        data = path.read_bytes()
        place %= len(data) + 1
        path.write_bytes(data[:place] + piece + data[place + cut :])
        try:
            audit = form.read(root, "here").audit
        except DataError:
            return
        assert audit.found == audit.kept + len(audit.dropped)
