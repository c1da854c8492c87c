"""The documentation says what is so: its examples run, its tables are up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ml_systems_debugger.core.names import ALIASES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_the_python_in_it_runs(path: Path) -> None:
    space: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
        exec(compile(code, str(path), "exec"), space)  # noqa: S102 - our own text


def test_the_table_of_names_is_up_to_date() -> None:
    text = (DOCS / "names.md").read_text(encoding="utf-8")
    rows = {
        f"| `{name}` | {', '.join(f'`{alias}`' for alias in aliases)} |"
        for name, aliases in ALIASES.items()
    }
    assert rows == {line for line in text.splitlines() if line.startswith("| `")}


def test_links_lead_somewhere() -> None:
    for path in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
