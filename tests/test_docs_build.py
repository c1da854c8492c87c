"""The pages made from the code are up to date, and the check of it can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "build.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_pages_are_up_to_date() -> None:
    done = build(DOCS, "--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named_and_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    shutil.copytree(DOCS, folder)
    page = folder / "detectors.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("nan_detect", "nothing"), encoding="utf-8")
    (folder / "names.md").write_text("By hand.\n\n| name |", encoding="utf-8")
    done = build(folder, "--check")
    assert done.returncode == 1
    assert str(page) in done.stderr
    assert str(folder / "names.md") in done.stderr
    assert build(folder).returncode == 0
    assert page.read_text(encoding="utf-8") == right
    assert (folder / "names.md").read_text(encoding="utf-8").startswith("By hand.\n\n| name |")
