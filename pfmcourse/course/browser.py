"""A real browser, Chromium, for decks and pages: to print them as PDF, and to look whether all is well on them.

Playwright drives the Chromium or Chrome that the machine has; nothing is downloaded.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pfmcourse.base import CourseError, require

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
VARIABLE = "PFMCOURSE_CHROMIUM"
USUAL_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
LOCAL = ("file:", "data:", "blob:", "about:")


def find() -> Path | None:
    """The program of a Chromium, Chrome or Edge on this machine, or None. ``PFMCOURSE_CHROMIUM`` names another one."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) if Path(named).is_file() else None
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return Path(found) if found else next((Path(place) for place in USUAL_PLACES if Path(place).is_file()), None)


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless browser for the time of the ``with``. Raises CourseError when there is none to start."""
    playwright = require("playwright.sync_api", "playwright", "the browser")
    program = find()
    if program is None:
        raise CourseError(
            "no Chromium, Chrome or Edge was found. On Debian and Ubuntu: sudo apt install chromium. "
            f"Elsewhere install Chrome, or set {VARIABLE} to the program."
        )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(program), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def window(
    browser: "Browser", width: int = 1280, height: int = 720, *, dark: bool = False
) -> Iterator[tuple["Page", list[str]]]:
    """A window of ``width`` x ``height`` pixels without a network, and the list of what goes wrong in it.

    The list grows while the page is used: errors and warnings on the console, scripts that raise, files that are not
    there, requests to other hosts (which get no answer).
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page, wrong = context.new_page(), []

    def answer(route) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            wrong.append(f"asks another host: {route.request.url}")
            route.abort()

    def console(message) -> None:
        if message.type in ("error", "warning") and "net::ERR_FAILED" not in message.text:  # listed as a request
            wrong.append(f"console {message.type}: {message.text}")

    def failed(request) -> None:
        if request.url.startswith(LOCAL) and "ERR_ABORTED" not in (request.failure or ""):
            wrong.append(f"cannot load {request.url}: {request.failure}")

    context.route("**/*", answer)
    page.on("console", console)
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    page.on("requestfailed", failed)
    try:
        yield page, wrong
    finally:
        context.close()
