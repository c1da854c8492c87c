"""The README says what is so: its example runs, its commands are the ones that CI runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_it_says() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    lines = code.group(1).strip().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10
    said = [line[2:] for line in lines if line.startswith("# ")]
    done = subprocess.run(
        [sys.executable, "-c", code.group(1)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said


def test_there_are_two_set_up_commands_and_ci_takes_them_from_here() -> None:
    part = README.partition("<!-- set-up -->")[2].partition("<!-- end of set-up -->")[0]
    commands = [line for line in part.splitlines() if line.startswith("python3 ")]
    assert len(commands) == 2
    assert "mlsd diagnose" in commands[0]
    assert "pytest" in commands[1]
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- set-up -->" in run
    assert "README.md" in run


def test_the_run_of_the_first_command_is_there() -> None:
    path = re.search(r"mlsd diagnose [^\n]*?(examples/\S+)", README)
    assert path is not None
    assert (ROOT / path.group(1)).is_file()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
