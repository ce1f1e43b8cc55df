"""The page of one case in a browser: the viewer, its controls, print, and what stands in for it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser
from made_up_case import BLOB, SHAPE, make_case
from nibabel.affines import apply_affine
from test_case_page import of_line

from gliofed.reporting.case.content import CaseContent
from gliofed.reporting.case.page import write_case_page
from gliofed.reporting.case.slices import display_centre
from gliofed.reporting.plots.style import Picture
from gliofed.types import Sequence

LIVE = "document.querySelector('#viewer.live') !== null"
STILL = "getComputedStyle(document.getElementById('still')).display"
CANVAS = "#canvas"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def content() -> CaseContent:
    return make_case()


@pytest.fixture(scope="module")
def page(content: CaseContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("case") / "case.html"
    write_case_page(content, path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    """A fresh page whose viewer has started."""
    browser.open(page)
    browser.until(LIVE)
    return browser


def place(browser: Browser) -> str:
    return browser.tell("document.getElementById('place').textContent")


def put(browser: Browser, name: str, value: str) -> None:
    """As a hand on the control would."""
    control = f"document.getElementById('{name}')"
    kind = "checked" if value in {"true", "false"} else "value"
    text = value if kind == "checked" else f"'{value}'"
    browser.tell(f"{control}.{kind} = {text}; {control}.dispatchEvent(new Event('input'))")


def press(browser: Browser, kind: str, value: str) -> None:
    """One of the buttons, and all that it starts."""
    browser.tell(f"document.querySelector('[data-{kind}=\"{value}\"]').click()")
    browser.tell("new Promise((done) => setTimeout(done, 300))")


def shown(browser: Browser) -> np.ndarray:
    return browser.picture(CANVAS).astype(int)


def test_it_starts_without_a_fault_and_asks_for_nothing(
    opened: Browser, content: CaseContent, page: Path
) -> None:
    assert [r for r in opened.requests if not r.startswith("data:")] == [page.as_uri()]
    assert opened.problems == []
    x, y, z = apply_affine(content.affine, display_centre(content))
    assert place(opened) == f"L {-x:.1f}, A {y:.1f}, S {z:.1f} mm"
    assert opened.tell("document.getElementById('no-viewer').hidden")
    assert opened.tell(STILL) == "none"
    assert opened.tell("document.documentElement.scrollWidth") <= 1280


def test_no_address_can_be_reached_from_the_page(opened: Browser) -> None:
    refused = opened.tell(
        """new Promise((done) => {
          const found = [];
          document.addEventListener("securitypolicyviolation", (e) => {
            found.push(e.effectiveDirective);
            if (found.length === 4) done(found.sort());
          });
          fetch("https://gliofed.invalid/").catch(() => null);
          new Image().src = "https://gliofed.invalid/x.png";
          try { new Worker("data:text/javascript,1"); } catch { /* refused too */ }
          const link = document.createElement("link");
          Object.assign(link, { rel: "stylesheet", href: "https://gliofed.invalid/x.css" });
          document.head.append(link);
        })"""
    )
    assert refused == ["connect-src", "img-src", "style-src-elem", "worker-src"]


def test_left_is_on_the_right_of_the_image_and_front_is_up(opened: Browser) -> None:
    press(opened, "view", "0")
    put(opened, "crosshair", "false")
    axial = shown(opened)
    line = np.argwhere(of_line(axial))
    assert len(line) > 50
    down, right = line.mean(0) / axial.shape[:2]
    # the slice is square-pixelled in the middle of a wide stage
    height = axial.shape[0]
    width = height * SHAPE[0] / SHAPE[1]
    expected = 0.5 + ((SHAPE[0] - BLOB[0] - 0.5) / SHAPE[0] - 0.5) * width / axial.shape[1]
    assert right == pytest.approx(expected, abs=0.02)
    assert down == pytest.approx(1 - (BLOB[1] + 0.5) / SHAPE[1], abs=0.02)
    top, start = line.min(0)
    bottom, end = line.max(0)
    inside = axial[top:bottom, start:end].min(-1)
    assert np.median(inside) > 200 > np.median(axial[axial.min(-1) > 20])
    put(opened, "outline", "false")
    assert not of_line(shown(opened)).any()


def test_keys_go_through_the_slices(opened: Browser, content: CaseContent) -> None:
    voxel = list(display_centre(content))
    for view, key, axis, by in (
        ("0", "ArrowUp", 2, 1), ("0", "ArrowLeft", 2, -1), ("0", "PageDown", 2, -10),
        ("0", "ArrowRight", 2, 1), ("1", "ArrowRight", 1, 1), ("1", "PageUp", 1, 10),
        ("2", "ArrowDown", 0, -1), ("2", "PageUp", 0, 10), ("3", "ArrowUp", 2, 1),
        ("3", "ArrowRight", 0, -1), ("3", "ArrowLeft", 0, 1), ("3", "PageDown", 1, -10),
    ):  # fmt: skip
        press(opened, "view", view)
        opened.tell("document.getElementById('canvas').focus()")
        opened.press(key)
        voxel[axis] += by
        value = f"document.getElementById('slice-{axis}').value"
        assert opened.until(value, lambda found, at=str(voxel[axis] + 1): found == at)
        mm = apply_affine(content.affine, voxel)
        names = zip(("LR", "PA", "IS"), mm, strict=True)
        assert (
            place(opened) == ", ".join(f"{n[int(v >= 0)]} {abs(v):.1f}" for n, v in names) + " mm"
        )
    opened.press("v")  # the viewer's own keys do nothing
    opened.press("c")
    assert (
        opened.tell("document.querySelector('[data-view][aria-pressed=true]').textContent")
        == "All three"
    )
    assert opened.problems == []


def test_sliders_wheel_and_mouse_do_what_they_say(opened: Browser, content: CaseContent) -> None:
    put(opened, "slice-2", "12")
    assert place(opened).endswith(f"I {-apply_affine(content.affine, (0, 0, 11))[2]:.1f} mm")
    press(opened, "view", "0")
    opened.tell("document.getElementById('canvas').scrollIntoView({behavior: 'instant'})")
    x, y = opened.tell(
        "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        "(document.getElementById('canvas').getBoundingClientRect())"
    )
    before = place(opened)
    opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)
    assert opened.until("document.getElementById('place').textContent", lambda t: t != before)
    assert opened.tell("document.getElementById('slice-2').value") in {"11", "13"}
    wide = shown(opened)
    for kind, dx, dy in (("mousePressed", 0, 0), ("mouseMoved", -20, 20), ("mouseMoved", -30, 30),
                         ("mouseReleased", -30, 30)):  # fmt: skip
        opened.mouse(kind, x + dx, y + dy, button="right", buttons=2, clickCount=1)
    assert int(opened.tell("document.getElementById('width').value")) < 100
    narrow = shown(opened)
    assert narrow.std() > wide.std()
    opened.tell("document.getElementById('reset').click()")
    assert opened.tell("document.getElementById('width').value") == "100"
    assert np.array_equal(shown(opened), wide)


def test_sequences_and_colours_are_what_was_chosen(opened: Browser, content: CaseContent) -> None:
    press(opened, "view", "0")
    put(opened, "crosshair", "false")
    flair = shown(opened)
    spot = np.argwhere(of_line(flair)).mean(0).astype(int)
    press(opened, "image", "volume-T1")
    pressed = "document.querySelector('[data-image][aria-pressed=true]').textContent"
    assert opened.tell(pressed) == "T1"
    dark = shown(opened)
    around = np.s_[spot[0] - 5 : spot[0] + 5, spot[1] - 5 : spot[1] + 5]
    assert dark[around].mean() < 0.6 * flair[around].mean()
    for name, words in (
        ("volume-deviation", "Standard deviation of the probability of tumour over 6 passes"),
        ("volume-why-0", "Fall of the probability of mutant (IDH mutation) where"),
    ):
        put(opened, "overlay", name)
        assert words in opened.until("document.getElementById('colours').textContent")
        opened.tell("new Promise((done) => setTimeout(done, 300))")
        coloured = np.ptp(shown(opened), axis=-1) > 40
        assert 0.002 < coloured.mean() < 0.3, name  # and nothing over the rest of the head
    put(opened, "overlay", "")
    opened.tell("new Promise((done) => setTimeout(done, 300))")
    assert np.array_equal(shown(opened), dark)
    assert opened.tell("document.getElementById('colours').textContent") == ""
    assert opened.problems == []


def test_a_narrow_screen_has_all_of_it(browser: Browser, page: Path) -> None:
    browser.open(page, 390, 844)
    browser.until(LIVE)
    assert browser.tell("document.documentElement.scrollWidth") == 390
    over = browser.tell(
        "Array.from(document.querySelectorAll('main *')).filter((e) => e.getBoundingClientRect()"
        ".right > 391 && !e.closest('pre')).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert over == []
    stage = browser.tell("document.getElementById('canvas').getBoundingClientRect().height")
    assert 300 < stage < 500


def test_print_has_slices_and_no_viewer(opened: Browser) -> None:
    opened.send("Emulation.setEmulatedMedia", media="print")
    assert opened.tell(STILL) == "block"
    assert opened.tell("getComputedStyle(document.getElementById('viewer')).display") == "none"
    opened.send("Emulation.setEmulatedMedia", media="")
    pages = len(re.findall(rb"/Type\s*/Page\b", opened.pdf()))
    assert 2 <= pages <= 5


def test_a_bare_case_has_a_viewer_too(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gliofed.reporting.case.slices.raster_picture",
        lambda figure, alt, dpi: Picture("data:,", alt, 9, 9),
    )
    case = make_case(sequences=(Sequence.T2,), probability=np.zeros(SHAPE, np.float32),
                     deviation=None, volume_range_ml=None, passes="", intervals="", occlusions=())  # fmt: skip
    markers = tuple(
        dataclasses.replace(m, prediction_set=None, confident=None) for m in case.markers
    )
    write_case_page(dataclasses.replace(case, markers=markers), tmp_path / "bare.html")
    browser.open(tmp_path / "bare.html")
    browser.until(LIVE)
    assert browser.tell("document.querySelectorAll('[data-image]').length") == 1
    assert browser.tell("document.querySelectorAll('.buttons button:disabled').length") == 3
    assert browser.problems == []


@pytest.mark.parametrize("lacks", ["WebGL", "JavaScript"])
def test_slices_stand_in_where_there_is_no_viewer(page: Path, tmp_path: Path, lacks: str) -> None:
    browser = Browser(tmp_path, *(["--disable-3d-apis"] if lacks == "WebGL" else []))
    try:
        if lacks == "JavaScript":
            browser.send("Emulation.setScriptExecutionDisabled", value=True)
        browser.open(page)
        words = "document.getElementById('no-viewer').textContent"
        if lacks == "WebGL":
            browser.until(words, lambda found: "could not start" in found)
        assert "The slices below replace the viewer" in browser.tell(words)
        assert browser.tell("document.getElementById('viewer').hidden")
        assert browser.tell(STILL) == "block"
    finally:
        browser.close()
