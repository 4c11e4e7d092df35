"""Headless Chromium without a network."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdf
import pytest
from axe_core_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

_TABLES_ARE_READY = """return [...document.querySelectorAll("table.interactive")]
    .every((table) => table.closest(".dt-container"))"""


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """Opens a browser. Without one, skips the test; fails it if GOODSEED_REQUIRE_BROWSER is set."""
    driver = shutil.which("chromedriver")
    if not (driver and shutil.which("chromium")):
        reason = "needs a browser: apt-get install chromium chromium-driver"
        if os.environ.get("GOODSEED_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = Options()
    no_network = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for flag in ("headless=new", "no-sandbox", no_network):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, Service(driver))
    chrome.set_script_timeout(180)  # seconds; on a busy machine, axe takes longer than the usual 30
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()


class Browser:
    """A page in the browser."""

    def __init__(self, chrome: webdriver.Chrome):
        self.chrome = chrome

    def open(self, page: Path | str, width: int = 1440, *, dark: bool = False) -> None:
        """Opens a file or a URL in a window of this width, and waits for its interactive tables."""
        self.chrome.get_log("browser")
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900,
                     deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.chrome.get(page.as_uri() if isinstance(page, Path) else page)
        # The script of the page imports a module, so it may still run after the page is loaded.
        WebDriverWait(self.chrome, 30).until(lambda _: self.run(_TABLES_ARE_READY))

    def command(self, name: str, **arguments: Any) -> Any:
        """Runs a command of the DevTools protocol."""
        return self.chrome.execute_cdp_cmd(name, arguments)

    def console_messages(self) -> list[str]:
        """The messages of the console since the page was opened."""
        return [entry["message"] for entry in self.chrome.get_log("browser")]

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs the body of a function in the page and gives its result."""
        return self.chrome.execute_script(script, *arguments)

    def accessibility_violations(self) -> list[str]:
        """The serious and critical problems that axe-core finds, and their elements."""
        self.command("Page.setBypassCSP", enabled=True)  # the page's policy would block axe
        self.run(AXE_SCRIPT)
        found = self.chrome.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
        return [
            f"{violation['id']}: {node['html'][:200]}"
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    def sheets(self) -> Sequence[pypdf.PageObject]:
        """The sheets of paper when the page is printed to PDF."""
        pdf = self.command("Page.printToPDF", printBackground=False)
        return pypdf.PdfReader(io.BytesIO(base64.b64decode(pdf["data"]))).pages

    def printed(self) -> str:
        """The text of the page when it is printed."""
        return "\n".join(sheet.extract_text() for sheet in self.sheets())
