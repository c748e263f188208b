"""What tests ask of the page: its process, and a real browser in front of it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
_PIXEL = """name => {
  const canvas = document.querySelector("canvas[role=application]"), { plan } = canvas.fleet;
  const place = plan.nodes.find((one) => one.name === name), scale = devicePixelRatio;
  const at = (part) => (part + plan.cell * 0.16) * scale;
  return [...canvas.getContext("2d").getImageData(at(place.x), at(place.y), 1, 1).data.slice(0, 3)];
}"""


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


def colour(page: Page, node: str) -> tuple[int, ...]:
    """The colour of a node on the map, as it is drawn."""
    return tuple(page.evaluate(_PIXEL, node))


def painted(page: Page, name: str) -> tuple[int, ...]:
    """The colour that the page's style gives to a state."""
    text = page.evaluate(
        "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()", name
    )
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))


def wait_for(page: Page, condition: str, arg: Any = None, *, timeout_s: float = 90.0) -> None:
    """Until a condition of JavaScript holds."""
    page.wait_for_function(condition, arg=arg, timeout=timeout_s * 1000)


def shoot(page: Page, folder: Path, name: str) -> None:
    """Both pictures of a view, light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_timeout(250)
        page.screenshot(path=folder / f"page-{name}-{scheme}.png", full_page=True)
    page.emulate_media(color_scheme="light")
