"""Write the pages that are made from the code: `names.md`, `detectors.md`, `findings.md`.

python docs/build.py            writes them anew
python docs/build.py --check    exit 1 where one is not up to date
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from ml_systems_debugger.checkpoints import CODES, EXPLANATIONS
from ml_systems_debugger.core import detectors, word
from ml_systems_debugger.core.names import ALIASES

DOCS = Path(__file__).parent


def names() -> str:
    """Return `names.md`: what is written by hand above the table, and the table."""
    by_hand = (DOCS / "names.md").read_text(encoding="utf-8").partition("| name |")[0]
    rows = [
        f"| `{name}` | {', '.join(f'`{alias}`' for alias in aliases)} |"
        for name, aliases in ALIASES.items()
    ]
    return "\n".join([f"{by_hand}| name | also written |", "|---|---|", *rows, ""])


def section(name: str, cls: type) -> str:
    """Return one detector as its docstring says it."""
    reads = ", ".join(f"`{one}`" for one in cls().get_required_signals()) or "every quantity"
    rules = ", ".join(f"`{rule.code}`" for rule in cls.attribution_rules) or "none of its own"
    finds = f"`{cls.__name__}` finds `{word(cls.failure_mode)}`."
    told = f"{finds} Reads {reads}. Rules on causes: {rules}."
    doc = inspect.getdoc(cls) or ""
    return "\n".join([f"## {name}", "", told, "", "```text", doc, "```", ""])


def reference() -> str:
    """Return `detectors.md`: every built-in detector, by name."""
    built_in = {
        name: cls
        for name, cls in detectors.items().items()
        if cls.__module__.startswith("ml_systems_debugger.")
    }
    listed = [f"- [`{name}`](#{name})" for name in built_in]
    made = "Made from their docstrings by `docs/build.py`; `mlsd explain NAME` prints the same."
    head = ["# Detectors", "", made, "", *listed, ""]
    return "\n".join([*head, *(section(name, cls) for name, cls in built_in.items())])


def findings() -> str:
    """Return `findings.md`: every code that `mlsd scan` and `mlsd diff` give."""
    made = "What `mlsd explain CODE` says of the codes; made by `docs/build.py`."
    head = [
        "# Findings of `mlsd scan` and `mlsd diff`", "", made, "",
        "| code | what | why it matters, what to do | failure mode |", "|---|---|---|---|",
    ]  # fmt: skip
    rows = [
        f"| `{code}` | {title} | {EXPLANATIONS[code]} | `{word(mode)}` |"
        for code, (mode, title) in CODES.items()
    ]
    return "\n".join([*head, *rows, ""])


def pages() -> dict[Path, str]:
    """Return every generated page with what it should hold."""
    return {
        DOCS / "names.md": names(), DOCS / "detectors.md": reference(),
        DOCS / "findings.md": findings(),
    }  # fmt: skip


def main() -> int:
    """Write the pages, or with ``--check`` only compare them."""
    stale = [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path}: not up to date, run python docs/build.py\n")
        return int(bool(stale))
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
