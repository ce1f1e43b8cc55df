"""Every row of FORMATS on a small set with its exact names."""

from __future__ import annotations

from collections import Counter

import nibabel as nib
import pytest
from trees import TABLES, TREES, ceccarelli, touch

from gliofed.data.formats.registry import FORMATS, format_of, read_sites
from gliofed.errors import DataError, StudyError
from gliofed.markers import BY_ID
from gliofed.study import DataConfig
from gliofed.types import UNKNOWN, Sequence

ROWS = pytest.mark.parametrize("form", FORMATS, ids=lambda f: f.id)
KEPT = {
    "bids": (3, 2), "ucsf_pdgm": (4, 2), "upenn_gbm": (3, 2), "egd": (3, 2), "utsw": (3, 2),
    "tcga": (3, 2), "brats": (3, 2), "nnunet": (3, 2), "cptac_gbm": (3, 2), "ivygap": (3, 2), "rembrandt": (3, 2),
    "rhuh_gbm": (9, 2), "lgg_1p19q": (3, 3),
}  # fmt: skip
LABELS = {
    "bids": [{"idh": "mutant", "codel_1p19q": "intact", "grade": "3"}, {}],
    "ucsf_pdgm": [
        {"idh": "mutant", "codel_1p19q": "intact", "mgmt": "methylated", "grade": "3"},
        {"idh": "wildtype", "grade": "4"},
    ],
    "upenn_gbm": [{"idh": "mutant", "mgmt": "methylated", "grade": "4"}, {"grade": "4"}],
    "egd": [{"idh": "mutant", "codel_1p19q": "codeleted", "grade": "2"}, {}],
    "utsw": [{"idh": "mutant", "codel_1p19q": "intact", "mgmt": "methylated", "grade": "3"}, {}],
    "tcga": [
        {},
        {"idh": "wildtype", "codel_1p19q": "intact", "mgmt": "methylated", "grade": "4"},
    ],
    "brats": [{"mgmt": "methylated"}, {}],
    "nnunet": [{"idh": "mutant"}, {}],
    "cptac_gbm": [{"mgmt": "methylated", "grade": "4", "idh": "wildtype"}, {"grade": "4"}],
    "ivygap": [{"mgmt": "methylated", "grade": "4", "idh": "wildtype"}, {"grade": "4"}],
    "rembrandt": [{"idh": "mutant", "grade": "3"}, {}],
    "rhuh_gbm": [{"idh": "wildtype", "grade": "4"}, {"grade": "4"}],
    "lgg_1p19q": [
        {"codel_1p19q": "codeleted", "grade": "2"}, {"codel_1p19q": "intact", "grade": "3"},
        {"grade": "2"},
    ],
}  # fmt: skip


@pytest.fixture
def tree(tmp_path, form):
    TREES[form.id](tmp_path / "set")
    return tmp_path / "set"


def edit(path, change) -> None:
    path.write_text(change(path.read_text()))


@ROWS
def test_a_format_reads_its_own_set_and_accounts_for_every_row(tree, form, monkeypatch) -> None:
    monkeypatch.setattr(nib, "load", None)  # no adapter opens an image
    reading = form.read(tree, "here")
    audit = reading.audit
    assert (audit.found, audit.kept) == KEPT[form.id]
    assert audit.kept == len(reading.cases)
    assert audit.found == audit.kept + len(audit.dropped)
    assert all(d.reason and d.row for d in audit.dropped)
    assert [dict(c.labels.values) for c in reading.cases] == LABELS[form.id]
    ids = [(c.site, c.id) for c in reading.cases]
    assert ids == sorted(set(ids))
    full = set(Sequence) if form.id != "lgg_1p19q" else {Sequence.T1CE, Sequence.T2}
    assert all(set(c.images) == full for c in reading.cases)
    paths = [p for c in reading.cases for p in (*c.images.values(), *filter(None, [c.mask]))]
    assert all(p.is_file() for p in paths)
    assert len(set(paths)) == len(paths)
    assert all(v in BY_ID[m].classes for c in reading.cases for m, v in c.labels.values.items())


@ROWS
def test_every_cell_of_a_column_is_counted_once(tree, form) -> None:
    audit = form.read(tree, "here").audit
    per_column = Counter()
    for item in audit.mapped:
        per_column[item.column, item.marker_or_field] += item.count
    table, _, column = TABLES[form.id]
    rows = len((tree / table).read_text().strip().splitlines()) - 1
    (counted,) = [n for (name, _), n in per_column.items() if name.startswith(column)]
    assert counted == rows
    unknown = {m.raw.lower() for m in audit.mapped if m.value == "unknown"}
    assert unknown.isdisjoint({"0", "1", "wildtype", "mutant", "methylated", "4"})


@ROWS
def test_an_account_is_printed_and_written_whole(tree, form) -> None:
    audit = form.read(tree, "here").audit
    text = "\n".join(audit.lines())
    assert f"found {audit.found}, kept {audit.kept}" in text
    assert all(d.reason in text for d in audit.dropped)
    plain = audit.plain()
    assert len(plain["dropped"]) == len(audit.dropped)
    assert sum(r["count"] for r in plain["mapped"]) == sum(m.count for m in audit.mapped)


@ROWS
@pytest.mark.parametrize("which", [1, 2])
def test_a_missing_column_is_named(tree, form, which) -> None:
    table, column = TABLES[form.id][0], TABLES[form.id][which]
    edit(tree / table, lambda t: t.replace(column, "something else", 1))
    without = ("bids", "brats", "nnunet", "cptac_gbm", "ivygap", "rembrandt")
    optional = which == 2 and form.id in without
    if optional:
        before = form.read(tree, "here").cases
        marker = "mgmt" if form.id in ("brats", "nnunet") else "idh"
        assert all(c.labels[marker] is UNKNOWN for c in before)
        return
    with pytest.raises(DataError, match=column.split()[0].replace(".", r"\.")) as caught:
        form.read(tree, "here")
    assert table in str(caught.value)


@ROWS
def test_a_row_that_stands_twice_is_refused(tree, form) -> None:
    table = tree / TABLES[form.id][0]
    edit(table, lambda t: t.rstrip("\r\n") + "\n" + t.rstrip().splitlines()[-1] + "\n")
    with pytest.raises(DataError, match="occurs twice"):
        form.read(tree, "here")


@ROWS
def test_a_cell_without_agreed_meaning_is_no_class(tree, form) -> None:
    table, _, column = TABLES[form.id]
    separator = "\t" if table.endswith(".tsv") else ";" if form.id == "egd" else ","
    lines = (tree / table).read_text().splitlines()
    place = lines[0].split(separator).index(column) if form.id != "rhuh_gbm" else 5
    cells = lines[1].split(separator)
    cells[place] = "perhaps"
    (tree / table).write_text("\n".join([lines[0], separator.join(cells), *lines[2:]]) + "\n")
    with pytest.raises(DataError, match="'perhaps'") as caught:
        form.read(tree, "here")
    assert "correct the cell" in str(caught.value)
    assert table in str(caught.value)


@ROWS
def test_a_folder_that_is_another_set_is_refused_in_one_sentence(tmp_path, form) -> None:
    with pytest.raises(DataError, match="no such folder"):
        form.read(tmp_path / "absent", "here")
    other = "egd" if form.id != "egd" else "utsw"
    TREES[other](tmp_path / "other")
    with pytest.raises(DataError) as caught:
        form.read(tmp_path / "other", "here")
    assert str(tmp_path / "other") in str(caught.value)


@ROWS
def test_a_table_without_scans_is_no_data_set(tmp_path, tree, form) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in tree.glob("*.[ct]sv"):
        (bare / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"no case|no sub-|identified by that table"):
        form.read(bare, "here")


def test_formats_are_told_apart_and_documented() -> None:
    assert [f.id for f in FORMATS] == list(TREES)
    assert all(f.title and f.layout and f.licence and f.citation for f in FORMATS)
    with pytest.raises(StudyError, match="nearest is 'ucsf_pdgm'"):
        format_of("ucsf-pdgm")


def test_sites_of_a_study_by_format_and_hospitals_inside_a_set(tmp_path) -> None:
    TREES["bids"](tmp_path / "north")
    TREES["ucsf_pdgm"](tmp_path / "ucsf")
    TREES["tcga"](tmp_path / "tcga")
    data = DataConfig(
        root=tmp_path,
        train=("north", "ucsf", "tcga/henry-ford-hospital"),
        external=("tcga/case-western",),
        formats={"ucsf": "ucsf_pdgm", "tcga": "tcga"},
    )
    sites = read_sites(data)
    assert list(sites) == [*data.train, *data.external]
    assert {s: {c.site for c in cases} for s, cases in sites.items()} == {s: {s} for s in sites}
    assert [c.id for c in sites["tcga/case-western"]] == ["TCGA-FG-9902"]
    whole = read_sites(DataConfig(root=tmp_path, train=("tcga",), formats={"tcga": "tcga"}))["tcga"]
    assert {str(c) for c in whole} == {"tcga/TCGA-06-9901", "tcga/TCGA-FG-9902"}
    with pytest.raises(DataError, match=r"no hospital 'duke'; there are case-western, henry-ford"):
        read_sites(DataConfig(root=tmp_path, train=("tcga/duke",), formats={"tcga": "tcga"}))
    with pytest.raises(StudyError, match="unknown format 'bid'; the nearest is 'bids'"):
        read_sites(DataConfig(root=tmp_path, train=("north",), formats={"north": "bid"}))


def test_a_folder_of_a_folder_is_a_site_where_no_set_is_named(tmp_path) -> None:
    TREES["bids"](tmp_path / "country/north")
    assert (
        len(read_sites(DataConfig(root=tmp_path, train=("country/north",)))["country/north"]) == 2
    )


def test_the_account_must_add_up(tmp_path) -> None:
    from gliofed.data.audit import DatasetAudit, DroppedRow

    DatasetAudit("x", tmp_path, 2, 1, (DroppedRow("a", "b"),), ())
    with pytest.raises(ValueError, match="2 found, 2 kept, 1 dropped"):
        DatasetAudit("x", tmp_path, 2, 2, (DroppedRow("a", "b"),), ())


@ROWS
def test_one_sequence_in_two_files_is_refused(tree, form) -> None:
    case = form.read(tree, "here").cases[0]
    image = case.images[Sequence.T2]
    touch(image.parent, image.name.removesuffix(".nii.gz"), end=".nii")
    with pytest.raises(DataError, match=r"keep (one|the first)"):
        form.read(tree, "here")


def test_tcga_without_a_row_or_with_a_stranger_site_is_dropped(tmp_path) -> None:
    TREES["tcga"](tmp_path)
    touch(tmp_path / "TCGA-ZZ-9909", "TCGA-ZZ-9909_1999.01.02_flair")
    touch(tmp_path / "TCGA-DU-9908", "TCGA-DU-9908_1999.01.02_flair")
    ceccarelli(tmp_path, {"TCGA-06-9901": "G4,60,male,WT,non-codel,", "TCGA-ZZ-9909": ",,,,,"})
    audit = format_of("tcga").read(tmp_path, "x").audit
    assert dict(audit.reasons()) == {
        "no row in table": ("TCGA-DU-9908", "TCGA-FG-9902"),
        "its tissue source site is not among the glioma hospitals of TCGA": ("TCGA-ZZ-9909",),
    }
