"""A real browser for tests, which reaches nothing but this host."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A name for the service: the pages and the browser make exceptions for a loopback address, and few
# people who read the pages will be on the machine that serves them.
HOST = "clustr.test"
# All names below `.test` are those of this host, and the browser knows no others; its own calls
# home are turned off, and so is what a container does not offer it.
FLAGS = [
    "--host-resolver-rules="
    "MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """The path of a browser, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def running(path: str) -> Iterator[Browser]:
    """Run the browser at this path for as long as the block takes."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
