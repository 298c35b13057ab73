"""A page in Debian's Chromium, headless: what it draws, what it complains of, how its tables sort."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--enable-logging=stderr",
)  # fmt: skip
PROBE = Path(__file__).with_name("probe.js")


def open_page(page: Path, folder: Path, width: int = 1200) -> tuple[dict[str, Any], list[str]]:
    """What the probe measured, and the console's lines (errors, warnings, uncaught exceptions)."""
    assert CHROMIUM, "no Chromium on this machine"
    copy = page.with_name("with_probe.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{PROBE.read_text()}</script></body>"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},900", "--dump-dom"]
    process = subprocess.run(
        [*command, copy.absolute().as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    copy.unlink()
    match = re.search(r'<pre id="probe">(.*?)</pre>', process.stdout, re.DOTALL)
    assert match, f"the page did not load: {process.stderr[-2000:]}"
    console = [line for line in process.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])), console
