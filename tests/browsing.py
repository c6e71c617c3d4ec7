"""A real browser for tests, which reaches nothing but this host."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, expect, sync_playwright

# A machine that runs other tests beside these is slow now and then.
expect.set_options(timeout=60_000)

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


# Of an upload there may be no picture: tests share a service and break files, and one that has
# much to do is asked once more. What a page shows instead is a test of its own.
PICTURE = re.compile(r"/uploads/[^/]+|/api/uploads/[^/]+/thumbnail")


class Traffic:
    """What the pages of a browser asked for, and the errors that they reported.

    Chromium reports what the policy of a page forbids as an error on the console, and answers with
    the status of an error, of which those for pictures of uploads are left out.
    """

    def __init__(self, context: BrowserContext, host: str):
        self._host = host
        self._addresses: list[str] = []
        self._errors: list[str] = []
        context.on("request", lambda request: self._addresses.append(request.url))
        context.on("console", self._note)
        context.on("weberror", lambda raised: self._errors.append(str(raised.error)))

    def _note(self, said: ConsoleMessage) -> None:
        address = said.location["url"]
        is_status = said.text.startswith("Failed to load resource: the server responded")
        if said.type == "error" and not (is_status and PICTURE.fullmatch(urlsplit(address).path)):
            self._errors.append(f"{said.text} ({address})")

    def require_only_ours(self) -> None:
        # blob: and data: addresses are the page's own memory.
        sent = [each for each in self._addresses if urlsplit(each).scheme not in ("blob", "data")]
        assert sent, "no request was seen, so the next line would prove nothing"
        assert {urlsplit(each).netloc for each in sent} == {self._host}
        assert not self._errors, self._errors

    def forget_error(self, text: str) -> None:
        """Leave out an error that a test brings about, such as the status of an answer."""
        told = [error for error in self._errors if text in error]
        assert told, f"{text} was not told: {self._errors}"
        self._errors = [error for error in self._errors if error not in told]
