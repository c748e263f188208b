"""What tests ask of the page: its process, and a real browser in front of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
_PIXEL = """([name, right]) => {
  const canvas = document.querySelector("canvas[role=application]"), { plan } = canvas.fleet;
  const place = plan.nodes.find((one) => one.name === name), scale = devicePixelRatio;
  const at = (part, share) => Math.round((part + plan.cell * share) * scale);
  const x = at(place.x, right ? 0.88 : 0.16), y = at(place.y, right ? 0.12 : 0.16);
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)];
}"""
_NAMELESS = """() => [...document.querySelectorAll("a, button, input, canvas[tabindex], [role=img], table")]
  .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.getAttribute("aria-label") || one.textContent.trim()
    || one.labels?.[0]?.textContent.trim() || one.caption?.textContent.trim()))
  .map((one) => one.outerHTML.slice(0, 120))"""
# Contrast after WCAG 2.1: relative luminance of a text's colour and of the first background behind it that is opaque.
_FAINT = """() => {
  const parsed = (text) => /^rgba?\\(([^)]+)\\)$/.exec(text)?.[1].split(",").map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), one = walk.currentNode.parentElement;
    const seen = one.checkVisibility({ opacityProperty: true }) && !one.closest(".unseen, .skip, script, style");
    if (!text || !seen) continue;
    const ink = parsed(getComputedStyle(one)[one instanceof SVGElement ? "fill" : "color"]);
    let behind = one, paper = null;
    while (behind && !(paper && (paper[3] ?? 1) === 1)) {
      paper = parsed(getComputedStyle(behind).backgroundColor);
      behind = behind.parentElement;
    }
    if (!ink || !paper) continue;
    const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b), ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
LEAVES = """() => document.querySelector("canvas[role=application]").fleet.plan.leaves
  .map(({ leaf }) => [leaf.name, leaf.nodes, leaf.rails])"""
"""Of the map: leaves, their nodes, and how many links of each rail are not sound."""
REMEMBER_CAPACITY = """() => {
  window.capacityShown = [];
  const look = () => {
    const found = document.querySelector("[data-group=batch] .big");
    if (found) window.capacityShown.push(found.textContent);
  };
  new MutationObserver(look).observe(document.getElementById("main"), { childList: true, subtree: true });
  look();
}"""
"""From now on, keep each number of nodes in service that is shown."""


@contextmanager
def page_process(folder: Path, *words: str) -> Iterator[str]:
    """`trainmaster controller page` on the journal and policy of a folder; yields the address with its token."""
    argv = [sys.executable, "-m", "trainmaster", "controller", "page", "--listen", "127.0.0.1:0", "--every", "0.5"]
    argv += ["--journal", str(folder / "journal.sqlite"), "--policy", str(folder / "policy.toml"), *words]
    with (folder / "page.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert "#token=" in url, (folder / "page.log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(chromium: Browser, url: str) -> Page:
    """A page with the map drawn."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800}, device_scale_factor=2)
    page.goto(url)
    page.wait_for_selector("canvas[role=application]", timeout=60_000)
    return page


def colour(page: Page, node: str, *, corner: bool = False) -> tuple[int, ...]:
    """The colour of a node on the map, as it is drawn; or of its corner, which is red where a link is not sound."""
    return tuple(page.evaluate(_PIXEL, [node, corner]))


def painted(page: Page, name: str) -> tuple[int, ...]:
    """The colour that the page's style gives to a state."""
    text = page.evaluate(
        "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()", name
    )
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))


def wait_for(page: Page, condition: str, arg: Any = None, *, timeout_s: float = 90.0) -> None:
    """Until a condition of JavaScript holds."""
    page.wait_for_function(condition, arg=arg, timeout=timeout_s * 1000)


def hard_to_use(page: Page) -> list[str]:
    """What a screen reader would have no name for, and texts too faint to read, light or dark."""
    found: list[str] = page.evaluate(_NAMELESS)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found += [f"{scheme}: {text}" for text in page.evaluate(_FAINT)]
    page.emulate_media(color_scheme="light")
    return found


def tab_to(page: Page, name: str) -> None:
    """Press Tab until a link or button of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            return
    raise AssertionError(f"Tab never comes to {name!r}")


def shoot(page: Page, name: str, *, whole: bool = True) -> None:
    """Both pictures of a view, light and dark, in the folder `TRAINMASTER_PICTURES`; nothing where that is not set."""
    folder = os.environ.get("TRAINMASTER_PICTURES")
    if not folder:
        return
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_timeout(250)
        page.screenshot(path=Path(folder) / f"page-{name}-{scheme}.png", full_page=whole)
    page.emulate_media(color_scheme="light")
