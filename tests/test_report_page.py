"""How a report looks: contrast of its colours; in a browser overflow, contrast of text, filters and the keyboard."""

import itertools
import re
import shutil

import pytest
from written_runs import write_run

from lilo_jax.report import html as report
from lilo_jax.report.theme import DARK, LIGHT

LONG = "frontier_with_a_long_name@64x1+algorithm.baseline=posterior"


def luminance(colour):
    """Relative luminance of (red, green, blue) from 0 to 255, WCAG 2.2."""
    channels = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


def contrast(one, other):
    """From 1 to 21; WCAG asks for 4.5 of text, and 3 of what is drawn."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def rgb(text):
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def test_contrast_of_known_colours():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_of_every_theme(theme):
    assert LIGHT.keys() == DARK.keys()
    for text, ground in itertools.product(("ink", "muted", "right", "wrong"), ("surface", "band")):
        assert contrast(rgb(theme[text]), rgb(theme[ground])) >= 4.5, (text, ground)
    for drawn in ("focus", "line", *(name for name in theme if name.startswith("arm-"))):
        assert contrast(rgb(theme[drawn]), rgb(theme["surface"])) >= 3, drawn


# --------------------------------------------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=next(found, None), args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    pytest.importorskip("matplotlib")
    root = tmp_path_factory.mktemp("page")
    for seed in (0, 1):
        for name, slope in (("uniform", 0.01), ("lilo", 0.02), (f"mine:{LONG}", 0.015)):
            write_run(root / str(seed) / name[:4], curriculum={"name": name}, seed=seed, slope=slope)
    return report.report_runs([root / "0", root / "1"], root / "report.html")


@pytest.fixture
def opened(browser, path):
    """(width, theme) -> the page."""
    pages = []

    def open_(width=1400, theme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        pages.append(page)
        page.goto(path.as_uri())
        return page

    yield open_
    for page in pages:
        page.close()


TEXTS = """() => {
  const shown = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const opaque = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const ground = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(ground)) return ground;
    }
    return "rgb(255, 255, 255)";
  };
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (["SCRIPT", "STYLE", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element), drawn = element.closest("svg");
    shown.push([walker.currentNode.textContent.trim(), drawn ? style.fill : style.color, opaque(element)]);
  }
  return shown;
}"""

STICKING_OUT = """() => [...document.querySelectorAll("main, main :not(.wide *):not(pre *):not(svg *)")]
  .filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > document.documentElement.clientWidth)
  .map((e) => e.outerHTML.slice(0, 120))"""

BROKEN = """() => {
  const broken = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("svg, dd, option") || !node.parentElement.getClientRects().length) continue;
    for (const word of node.textContent.matchAll(/[\\p{L}\\p{N}_]+/gu)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const tops = [...range.getClientRects()].map((box) => Math.round(box.top));
      if (new Set(tops).size > 1) broken.push(word[0]);
    }
  }
  return broken;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_sticks_out_and_all_text_can_be_read(opened, width, theme):
    page = opened(width, theme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate(BROKEN) == []
    texts = page.evaluate(TEXTS)
    assert len(texts) > 200
    assert {"accuracy on test", "Completions", "correct"} <= {text for text, *_ in texts}
    grounds = set()
    for text, colour, ground in texts:
        ink, paper = (tuple(map(float, re.findall(r"[\d.]+", value)[:3])) for value in (colour, ground))
        grounds.add(paper)
        assert contrast(ink, paper) >= 4.5, (text, colour, ground)
    assert rgb((LIGHT if theme == "light" else DARK)["surface"]) in grounds


@pytest.mark.slow
def test_completions_are_filtered_with_the_keyboard(opened):
    page = opened(390)
    shown = page.locator(".completions > li:visible")
    count = page.locator("form.filter output")
    assert count.inner_text() == "18 of 18 completions"  # 3 arms, 2 steps, 3 rollouts each
    assert shown.count() == 12
    page.locator("button.more").focus()
    page.keyboard.press("Enter")
    assert shown.count() == 18
    assert page.evaluate("document.activeElement === document.querySelectorAll('.completions > li')[12]")
    page.locator("select[name=arm]").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "verdict"
    page.keyboard.type("wrong")
    assert count.inner_text() == "6 of 18 completions"
    assert set(shown.locator(".verdict").all_inner_texts()) == {"wrong"}
    page.keyboard.press("Tab")
    page.keyboard.type("ALERT")  # in the response, in small letters
    assert count.inner_text() == "6 of 18 completions"
    page.keyboard.type(" 10")
    assert shown.count() == 0
    assert page.locator("button.more").is_hidden()


@pytest.mark.slow
def test_the_focus_is_seen_wherever_the_keyboard_goes(opened):
    page = opened(390)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement);"
            " return [document.activeElement.tagName, s.outlineStyle, parseFloat(s.outlineWidth), s.outlineColor]; })()"
        )
        if style[0] == "BODY":
            break
        reached.append(style[0])
        assert style[1:] == ["solid", 3, f"rgb{rgb(LIGHT['focus'])}"], style
    assert {"DIV", "SELECT", "INPUT", "BUTTON", "SUMMARY", "PRE"} <= set(reached)
