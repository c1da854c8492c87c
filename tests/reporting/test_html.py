"""One HTML file: whole, escaped, nothing fetched, drawn by a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from ml_systems_debugger import DebugReport, diagnose
from ml_systems_debugger.core import DetectionResult, Finding, Severity
from ml_systems_debugger.reporting import Reporter, render_many

from .conftest import reports

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


class Balanced(HTMLParser):
    """Fails where a tag is not closed, or closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def parsed(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser


def broken() -> DebugReport:
    n = 800
    loss = np.exp(-np.arange(n) / 200.0)
    norm = np.ones(n)
    norm[500:520] = 2.0 ** np.arange(20)
    loss[520:], norm[520:] = np.nan, np.nan
    return diagnose({"loss": loss, "grad_norm": norm, "lr": np.full(n, 0.1)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_any_report_is_a_whole_page(report: DebugReport) -> None:
    for text in (report.to_html(), render_many([("\x1b[31m<b>", report)] * 2, "html")):
        text.encode("utf-8")
        seen = parsed(text).seen
        assert "script" not in seen
        assert not re.search(r"(src|href)=\"(?!#)", text), "nothing is fetched"


def test_names_are_shown_and_not_read_as_markup() -> None:
    bad = "</svg><script>alert(1)</script>"
    finding = Finding("nan_detected", Severity.HIGH, 0.9, 3, layer=bad, message=bad,
                      evidence={"series": bad, bad: bad})  # fmt: skip
    curve = {"series": bad, "steps": [0], "last_step": 9, "low": [0.0], "high": [1.0],
             "not_finite": [0]}  # fmt: skip
    result = DetectionResult.of_findings("nan_detected", bad, [finding])
    text = DebugReport(0.0, [result], summary=bad, metadata={"curves": [curve]}).to_html()
    assert "script" not in parsed(text).seen
    assert "&lt;script&gt;" in text


def test_the_curve_shows_the_onset() -> None:
    text = broken().to_html()
    assert text.count("<svg") >= 3
    assert 'class="onset"' in text
    assert 'class="bad"' in text
    assert ">step 5" in text
    assert len(text) < 100_000


def test_several_runs_begin_with_a_table() -> None:
    healthy = diagnose({"loss": 1 / np.arange(1.0, 400.0)})
    text = render_many([("good.csv", healthy), ("bad.csv", broken())], "html")
    assert "<td>good.csv</td>" in text
    assert '<a href="#run1">bad.csv</a>' in text
    assert text.count("<section") == 1


@pytest.mark.parametrize("values", [[1.0, 1.0], [-3.0, 5.0], [0.0, 1e308], [np.nan, np.inf]])
def test_any_axis(values: list[float]) -> None:
    report = diagnose({"loss": np.array(values * 50)})
    parsed(Reporter("html").render(report, title="a run"))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_draws_it_and_finds_nothing_wrong(tmp_path: Path) -> None:
    page, shot = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(broken().to_html(), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=600,1200",
    ]  # fmt: skip
    done = subprocess.run(
        [*command, f"--screenshot={shot}", page.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, "the browser complains"
    assert shot.stat().st_size > 10_000, "an empty page takes less"
    dom = subprocess.run(
        [*command, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert dom.stdout.count("<polygon") == page.read_text(encoding="utf-8").count("<polygon")
