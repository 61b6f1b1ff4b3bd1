"""Somebody who opens the studio in a browser and uses it; makes the screenshots, and is the user of the browser tests.

Needs Playwright and a Chromium that is installed on this machine.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Look = Literal["light", "dark"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH, HEIGHT = 1360, 900
PATIENCE = 300.0
"""Seconds that a page or a run may take."""


@dataclass(frozen=True)
class Visit:
    """How one tab is driven to a result.

    Args:
        title: of the tab.
        example: words of the example that is chosen.
        ready: shows that the example has arrived.
        result: shows that the result is there.
    """

    title: str
    example: str
    ready: str
    result: str


VISITS = {
    "chat": Visit("Chat", "what color is the car?", "#chat-message img", "#chat-messages .bot"),
    "understand": Visit(
        "Understand", "what is on the left?", "#understand-pictures img", "#understand-answer .uni-answer"
    ),
    "create": Visit("Create", "a tree and a car in the snow", "#create-prompt textarea", "#create-gallery img"),
    "edit": Visit("Edit", "make the car blue", "#edit-canvas canvas", "#edit-slider img"),
    "story": Visit("Interleaved story", "a red boat and a green tree", "#story-prompt textarea", "#story-told article"),
    "infill": Visit("Infill", "a <gap:1> car", "#infill-text textarea", "#infill-filled .uni-answer"),
}


def find_browser() -> str | None:
    """The path of a Chromium, None if this machine has none."""
    return next((path for path in map(shutil.which, BROWSERS) if path is not None), None)


@contextmanager
def open_browser() -> Iterator[Any]:
    """A headless Chromium.

    Raises:
        ValueError: Playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ValueError("playwright is not installed; it drives the browser: pip install playwright") from error
    path = find_browser()
    if path is None:
        raise ValueError(f"no browser is installed; one of {', '.join(BROWSERS)} is needed")
    with sync_playwright() as playwright:
        # Containers run as root, where Chromium has no sandbox, and have a small /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One user: a page of the studio in a session of its own.

    Args:
        browser: from `open_browser`.
        address: of the studio.
    """

    def __init__(self, browser: Any, address: str, look: Look = "light"):
        self.context = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT}, accept_downloads=True, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{address}?__theme={look}")
        self.page.wait_for_selector(".uni-head")

    def open(self, task: str) -> None:
        """Turns to a tab."""
        self.page.get_by_role("tab", name=VISITS[task].title, exact=True).click()
        self.page.wait_for_selector(f"#{task}-run")

    def choose(self, task: str, example: str | None = None) -> None:
        """Takes an example, the tab's own if none is named, and waits for it to arrive."""
        visit = VISITS[task]
        words = example or visit.example
        self.page.locator("td, .gallery-item").get_by_text(words).locator("visible=true").first.click()
        self.page.wait_for_selector(visit.ready)
        # What was chosen is in the field once the server has answered.
        self.page.wait_for_function(
            "(words) => [...document.querySelectorAll('textarea')].some((field) => field.value.includes(words))",
            arg=words,
        )

    def fix_seed(self, task: str, seed: int) -> None:
        self.page.locator(f"#{task}-random input").uncheck()
        self.page.locator(f"#{task}-seed input").fill(str(seed))

    def run(self, task: str) -> None:
        """Presses the button of the tab."""
        # Facts of an earlier run are told apart from those to come.
        self.page.evaluate(
            "(place) => document.querySelector(place)?.setAttribute('data-old', '')", f"#{task}-facts .uni-facts"
        )
        self.page.locator(f"#{task}-run").click()

    def wait(self, task: str) -> dict[str, str]:
        """Waits until the run is over; returns what the footer says."""
        self.page.wait_for_selector(f"#{task}-facts .uni-facts:not([data-old])")
        names = self.page.locator(f"#{task}-facts dt").all_inner_texts()
        return dict(zip(names, self.page.locator(f"#{task}-facts dd").all_inner_texts(), strict=True))

    def drive(self, task: str, seed: int = 0) -> dict[str, str]:
        """Brings a tab to the result of its example; returns what the footer says."""
        self.open(task)
        self.choose(task)
        self.fix_seed(task, seed)
        self.run(task)
        facts = self.wait(task)
        self.page.wait_for_selector(VISITS[task].result)
        return facts

    def close(self) -> None:
        self.context.close()


def take_screenshots(address: str, folder: Path) -> list[Path]:
    """Writes `<tab>-<look>.png` of every tab with a result, in light and dark.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with open_browser() as browser:
        visitor = Visitor(browser, address)
        for task in VISITS:
            visitor.drive(task)
            visitor.page.wait_for_timeout(1000)
            for look in ("light", "dark"):
                visitor.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", look == "dark")
                visitor.page.wait_for_timeout(400)
                visitor.page.evaluate("window.scrollTo(0, 0)")
                path = folder / f"{task}-{look}.png"
                save_small(visitor.page.screenshot(), path)
                paths.append(path)
        visitor.close()
    return paths


def save_small(screenshot: bytes, path: Path) -> None:
    """Writes a screenshot with 256 colours, which is a third of the size and hardly to be seen."""
    import io

    from PIL import Image

    from unimodal_configs.atomic import replacing

    with Image.open(io.BytesIO(screenshot)) as picture, replacing(path) as temporary:
        small = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        small.save(temporary, format="PNG", optimize=True)
