"""The report as a page: parsed, and shown by a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sweeps.reporting.report import write_report
from sweeps.reporting.report_page import html_page
from tests.sweeps.test_report import SCORES, Finished

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SWITCHES = (  # no first-run pages, no look-ups of its own
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Page(HTMLParser):
    """Its tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> Path:
    scores = {**SCORES, 6: 0.2, 7: 0.3}
    space = {
        "parameters": {
            "align.mixture.shares": {
                "type": "simplex",
                "over": ["synthetic", "scenes"],
                "step": 0.25,
            },
            "align.epochs": {"type": "choice", "values": [2, 3]},
        }
    }
    finished = Finished(tmp_path, scores, space=space, search__trials=8)
    files = write_report(finished.summary(), ["The plan."], tmp_path)
    return next(file for file in files if file.name == "report.html")


def test_the_page_needs_nothing_beside_itself(page: Path) -> None:
    parsed = Page(page.read_text())
    tags = [tag for tag, _ in parsed.tags]
    assert not {"script", "link", "iframe"} & set(tags)
    pictures = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert len(pictures) == 2  # score against share, parallel coordinates
    assert all(str(source).startswith("data:image/png;base64,") for source in pictures)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page.read_text())


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    page = html_page("# a <script>alert(1)</script> b\n\n![x](gone.png)", "<b>", tmp_path)
    parsed = Page(page)
    assert "script" not in [tag for tag, _ in parsed.tags]
    assert "alert(1)" in parsed.text and "<title>&lt;b&gt;</title>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_the_page_whole_and_has_nothing_to_complain_of(
    page: Path, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            *(CHROMIUM, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}"),
            *("--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=5000"),
            *("--window-size=1100,3000", f"--screenshot={picture}"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    shown = Page(done.stdout)
    for heading in (
        *("Selection split, top-1 in %", "Report split, read once after the search, top-1 in %"),
        *("Which settings matter", "Stages: what was shared, what it saved"),
        *("Mixtures: asked and drawn", "Failed", "The plan it began with"),
    ):
        assert heading in shown.text
    assert picture.stat().st_size > 20_000
