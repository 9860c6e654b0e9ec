"""Asks a headless browser what it makes of a page."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-extensions --disable-sync --disable-background-networking "
    "--disable-component-update --hide-scrollbars --enable-logging=stderr "
    "--virtual-time-budget=10000 --allow-file-access-from-files"
)

# A window is never narrower than some 500 pixels; a frame is as narrow as it is told to be.
AROUND = """<!DOCTYPE html><meta charset="utf-8"><pre id="said"></pre>
<iframe src="page.html" style="border: 0; width: %dpx; height: 900px"></iframe>
<script>addEventListener("load", async () => {
  const seen = {}, { contentWindow: window, contentDocument: document } = frames[0].frameElement;
  try {
    seen.result = await (async () => { %s })() ?? null;
  } catch (error) {
    seen.error = String(error);
  }
  seen.width = window.innerWidth;
  seen.needed = document.documentElement.scrollWidth;
  self.document.getElementById("said").textContent = JSON.stringify(seen);
});</script>"""


class Seen(NamedTuple):
    result: object  # what the script returned
    needed: int  # the width in pixels that the page takes up
    console: list[str]  # errors, warnings and notes of the page and the browser


def checked(text: str, script: str = "", width: int = 400, dark: bool = False) -> Seen:
    """What a page does when the body of an asynchronous function, which knows its `window` and `document`, runs in a window of this width."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(text, encoding="utf-8")
        (Path(folder) / "around.html").write_text(AROUND % (width, script), encoding="utf-8")
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        command = [
            browser,
            *FLAGS.split(),
            scheme,
            f"--user-data-dir={folder}/profile",
            "--dump-dom",
            f"file://{folder}/around.html",
        ]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=120, check=True
        )
    printed = re.search(r'<pre id="said">(.+?)</pre>', done.stdout, re.DOTALL)
    assert printed, f"the browser said nothing: {done.stderr}"
    seen = json.loads(html.unescape(printed[1]))
    assert "error" not in seen, seen["error"]
    assert seen["width"] == width, f"the page saw {seen['width']} pixels instead of {width}"
    return Seen(seen["result"], seen["needed"], re.findall(r"CONSOLE\S*\] (.*)", done.stderr))
