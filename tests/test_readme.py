"""The README is true: its example runs, its commands are those that .ci/run takes from it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def set_up() -> list[str]:
    block = README.partition("<!-- set-up -->")[2].partition("<!-- end of set-up -->")[0]
    return re.findall(r"^python3 .*$", block, re.MULTILINE)


def test_the_example_prints_what_it_says() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    lines = [line for line in code[1].splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 10
    expected = [line[2:] for line in code[1].splitlines() if line.startswith("# ")]
    done = subprocess.run(
        [sys.executable, "-c", code[1]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


def test_two_set_up_commands_as_ci_finds_them() -> None:
    """.ci/run takes the commands between the two marks of the README with awk."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    awk = re.search(r"< <\((awk .*)\)", script)
    assert awk is not None, ".ci/run no longer reads the README"
    done = subprocess.run(
        ["bash", "-c", awk[1]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == set_up()
    assert len(set_up()) == 2
    assert re.search(r"-eq 2", script), ".ci/run no longer insists on two commands"


def test_the_first_diagnoses_a_run_and_the_second_runs_the_tests() -> None:
    first, second = set_up()
    diagnosis = shlex.split(first.split("&&")[-1])
    assert diagnosis[:2] == [".venv/bin/mlsd", "diagnose"]
    assert (ROOT / diagnosis[-1]).is_file()
    assert "pytest" in second
    for command in (first, second):
        assert ".venv/bin/pip install" in command


def test_the_diagnosis_of_the_set_up_names_the_planted_fault() -> None:
    words = shlex.split(set_up()[0].split("&&")[-1])
    done = subprocess.run(
        [sys.executable, "-m", "ml_systems_debugger", *words[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for said in ("nan_detected", "exploding_gradients", "learning_rate"):
        assert said in done.stdout


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"),
                     *ROOT.glob("examples/**/*.md")]
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]  # fmt: skip
    assert broken == []
