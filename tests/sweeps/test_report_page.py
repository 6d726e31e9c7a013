"""The report as a page: parsed, and shown by a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sweeps.reporting.curves import curve_stages
from sweeps.reporting.report import write_report
from sweeps.reporting.report_page import html_page
from tests.sweeps.test_plan import HORIZON_FREE
from tests.sweeps.test_report import Finished

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
    """Of a sweep that has about all that a report can tell of."""
    space = {
        "parameters": {
            "align.mixture.shares": {
                "type": "simplex",
                "over": ["synthetic", "scenes"],
                "step": 0.25,
            },
            "align.epochs": {"type": "choice", "values": [4, 8]},  # of one line of trunks
        }
    }
    shared = {f"trial__{key}": value for key, value in HORIZON_FREE.items()}
    averaged = {"average.method": "interpolate", "average.coefficient": 0.25}
    finished = Finished(
        tmp_path,
        {0: 0.1, 1: 0.5, 2: 0.4, 3: 0.6, 4: 0.55, 5: 0.45, 7: 0.3, 8: 0.35},  # 6 fails
        space=space,
        search__trials=9,
        search__points=[{"name": "averaged", "set": averaged}],
        search__objectives=["score", "gpu_hours"],
        search__law={"weights": None, "kl_to_natural": 0.0, "last_trials": 0},
        search__merge_proxy={"points": 5},
        **{**shared, "trial__mae__epochs": 1, "trial__align__epochs": 4},
        trial__average__scored_together=[0.0, 0.25, 1.0],
    )
    assert finished.search.proposals.merges is not None
    finished.publish(*finished.search.proposals.merges.unscored(), accuracy=0.4)
    finished.publish(*curve_stages(finished.search, finished.data), accuracy=0.5)
    files = write_report(finished.summary(), ["The plan."], tmp_path)
    return next(file for file in files if file.name == "report.html")


def test_the_page_needs_nothing_beside_itself(page: Path) -> None:
    parsed = Page(page.read_text())
    tags = [tag for tag, _ in parsed.tags]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(tags)
    pictures = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    # Score against share, averaging curve, laws, Pareto front, parallel coordinates.
    assert len(pictures) == 5
    assert all(str(source).startswith("data:image/png;base64,") for source in pictures)
    for tag, attributes in parsed.tags:
        for name, value in attributes.items():
            if (tag, name) != ("a", "href"):  # which is followed by a person, not by a browser
                assert not re.match(r"(?:\w+:)?//", (value or "").strip()), (tag, name, value)
    styles = re.findall(r"<style.*?</style>|style=\"[^\"]*\"", page.read_text(), re.DOTALL)
    assert styles and not re.search(r"@import|url\(\s*[\"']?(?!data:)", "".join(styles))


def test_the_page_warns_of_an_importance_that_few_trials_tell(page: Path) -> None:
    text = Page(page.read_text()).text
    assert "Read with care: these are" in text and "with fewer than 40 chance decides" in text


def test_the_page_tells_of_laws_merges_curves_fronts_and_trunks(page: Path) -> None:
    text = Page(page.read_text()).text
    for told in (
        "The laws propose",
        "5 merges of the source-only baselines",
        "Averaging curve 1",
        "Pareto",
        "align_trunk",
    ):
        assert told in text


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
        *("The score as a law of the mix", "Which settings matter"),
        *("Stages: what was shared, what it saved"),
        *("Mixtures: asked and drawn", "Failed", "The plan it began with"),
    ):
        assert heading in shown.text
    assert picture.stat().st_size > 20_000
