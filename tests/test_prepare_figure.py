"""The picture of a prepared case, and the page over them."""

import dataclasses
import html
import io

import matplotlib.image
import numpy as np
import pytest

import gliofed
from gliofed.errors import UnwritableError
from gliofed.preprocessing import quality_figure
from gliofed.preprocessing.quality_figure import draw_figure, figure_name, update_figure
from gliofed.preprocessing.quality_index import render_index
from gliofed.types import PreparationMeasures, Sequence


@pytest.fixture
def head(make_prepared):
    """A ball of a brain; its right half is brighter, the tumour lies in it."""
    prepared = make_prepared("x", size=32)
    x, y, z = np.indices((32, 32, 32)) - 16
    ball = x**2 + y**2 + z**2 < 15**2
    image = np.stack([np.where(ball, 0.5 + 2 * (x > 0) + 0.1 * np.sin(3 * z), 0)] * 4)
    return dataclasses.replace(prepared, image=image.astype(np.float16))


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def near(image: np.ndarray, colour: str) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.abs(image - wanted).max(-1) < 0.1


def test_the_patients_right_is_on_the_left(head) -> None:
    image = pixels(draw_figure(head, ()))
    axial = image[60:280, : image.shape[1] // 3].mean(-1)
    middle = axial.shape[1] // 2
    left, right = axial[:, 30 : middle - 10], axial[:, middle + 10 : -30]
    assert left.mean() > 2 * right.mean()  # +x, the bright half, is the right of RAS


def test_every_sequence_has_a_row_and_a_missing_one_none(head) -> None:
    whole = pixels(draw_figure(head, ()))
    three = pixels(draw_figure(dataclasses.replace(head, present=(True, True, False, True)), ()))
    assert (
        abs((whole.shape[0] - three.shape[0]) - quality_figure.ROW * quality_figure.DOTS_PER_INCH)
        <= 1
    )


@pytest.mark.slow
def test_outlines_are_there_where_there_is_something_to_outline(head) -> None:
    with_mask = pixels(draw_figure(head, ()))[50:-30]
    bare = dataclasses.replace(head, mask=None)
    assert near(with_mask, quality_figure.BRAIN).sum() > 1000
    assert near(with_mask, quality_figure.EXPERT).sum() > 300
    assert near(pixels(draw_figure(bare, ()))[50:-30], quality_figure.EXPERT).sum() == 0


def test_edges_of_the_reference_lie_on_the_other_sequences_alone(head) -> None:
    measures = PreparationMeasures(
        1.3, None, dict.fromkeys((Sequence.T1CE, Sequence.T2, Sequence.FLAIR), 1.2)
    )
    image = pixels(draw_figure(dataclasses.replace(head, measures=measures), ()))[50:-30]
    row = image.shape[0] // 4
    green = [near(image[row * n : row * (n + 1)], quality_figure.EDGES).sum() for n in range(4)]
    assert green[0] == 0  # T1, the one without a measure, is the reference
    assert min(green[1:]) > 0


def test_the_template_shows_where_the_case_was_laid_on_it(head) -> None:
    pytest.importorskip("nilearn")
    blank = dataclasses.replace(head, image=np.zeros_like(head.image), mask=None)
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -60, -80, -50
    laid = dataclasses.replace(blank, affine=affine, measures=PreparationMeasures(1.3, 0.9, {}))
    found = [
        near(pixels(draw_figure(p, ()))[50:-30], quality_figure.TEMPLATE).sum()
        for p in (blank, laid)
    ]
    assert found[1] > found[0] + 1000


def test_faults_are_told_in_words(head) -> None:
    sound, aside = (
        near(pixels(draw_figure(head, why)), quality_figure.TROUBLE).sum()
        for why in ((), ("far $x",))
    )
    assert sound == 0 < aside


@pytest.mark.slow
def test_odd_cases_are_drawn(head) -> None:
    blank = np.zeros_like(head.image)
    name = dataclasses.replace(head.case, site="北\n医", id="$\\frac{$")
    for odd in (
        dataclasses.replace(head, image=blank),
        dataclasses.replace(head, image=head.image[:, :1, :1, :1], mask=None),
        dataclasses.replace(head, image=blank, mask=np.zeros(blank.shape[1:], np.uint8)),
        dataclasses.replace(head, case=name),
    ):
        assert draw_figure(odd, ()).startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_figure_is_drawn_once_for_what_it_shows(head, tmp_path, monkeypatch) -> None:
    path = tmp_path / "f.png"
    drawn: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        quality_figure, "draw_figure", lambda p, why: drawn.append(why) or draw_figure(p, why)
    )
    for why in ((), (), ("far",), ("far",)):
        update_figure(head, why, path)
    assert drawn == [(), ("far",)]
    update_figure(dataclasses.replace(head, key="other"), ("far",), path)
    path.write_bytes(b"damaged")
    update_figure(head, ("far",), path)
    assert len(drawn) == 4
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="cannot be written to"):
        update_figure(head, (), tmp_path / "file" / "f.png")


def test_names_fit_every_file_system_and_stay_apart(head) -> None:
    def named(site: str, id_: str) -> str:
        return figure_name(dataclasses.replace(head.case, site=site, id=id_))

    assert named("north", "001") == "north_001.png"
    odd = {named("tcga/duke", "1"), named("tcga_duke", "1"), named("tcga duke", "1"),
           named("..", "/etc"), named("n" * 300, "1"), named("n" * 300, "2")}  # fmt: skip
    assert len(odd) == 6
    assert all(len(n) < 130 and "/" not in n and n[0] != "." for n in odd)


def test_the_page_shows_what_needs_a_look_first_and_escapes_names(head, tmp_path) -> None:
    def account(id_: str, status: str, *why: str) -> gliofed.CasePreparation:
        case = dataclasses.replace(head.case, id=id_)
        path = None if status == "failed" else tmp_path / f"a b#{id_}.png"
        return gliofed.CasePreparation(
            case, status, why, 1.0, None, None if status == "failed" else head.measures, path
        )  # type: ignore[arg-type]

    bad = "<script>alert(1)</script>"
    accounts = [account("1", "reused"), account("2", "prepared"), account("3", "excluded", "far"),
                account(bad, "failed", bad)]  # fmt: skip
    page = render_index(accounts, bad)
    assert "<script" not in page
    assert page.count(html.escape(bad)) == 4  # twice in the title, case and reason
    order = [
        page.index(text) for text in (f"here/{html.escape(bad)}", "here/3", "here/2", "here/1")
    ]
    assert order == sorted(order)
    assert 'src="a%20b%233.png"' in page
    assert page.count("<img") == 3
    assert "1 failed, 1 excluded, 1 prepared, 1 reused" in page
    assert "Not a medical device" in page
