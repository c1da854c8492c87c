"""Reports as workflow commands: GitHub shows them as annotations of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core import Severity, reporters
from ..core.verdict import Notice, Verdict
from ._verdicts import VerdictReporter
from ._words import printable

__all__ = ["GithubReporter"]

_LEVELS = {
    Severity.LOW: "notice", Severity.MEDIUM: "warning", Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}  # fmt: skip


@reporters.register("github")
class GithubReporter(VerdictReporter):
    """Writes ``::error file=...,title=...::message`` lines, worst first.

    Findings of one rule and one check (a detector, a family of tensors) are one annotation:
    GitHub shows ten of a kind per step.
    """

    def render_all(
        self,
        verdicts: Sequence[Verdict],
        *,
        fail_on: Severity | str | None = Severity.HIGH,  # noqa: ARG002 - levels say it
    ) -> str:
        """Return the reports as lines: a plain one for each, then its annotations."""
        return "\n".join(line for verdict in verdicts for line in _lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    # A line that began with two colons would be a command.
    name = printable(verdict.path) or "run"
    yield f"mlsd {name}: {verdict.status}: {printable(verdict.summary)}"
    groups: dict[tuple[Severity, str, str], list[Notice]] = {}
    for notice in verdict.notices:
        groups.setdefault((notice.severity, notice.code, notice.check), []).append(notice)
    for (severity, code, _), members in groups.items():
        first = members[0]
        where = "".join(f"{p.kind} {p.name}: " for p in first.places)
        more = f" (and {len(members) - 1} more of its kind)" if len(members) > 1 else ""
        yield _command(
            _LEVELS[severity], f"{where}{first.message}{more}", file=first.file, line=first.line,
            title=f"{severity} {code}",
        )  # fmt: skip
    for text in verdict.unread:
        yield _command("error", text, file=verdict.path, line=None, title="not read")
    for check in verdict.checks:
        if check.broken:
            text = f"{check.name}: {check.broken}"
            yield _command("error", text, file=verdict.path, line=None, title="check failed")


def _command(level: str, message: str, *, file: str, line: int | None, title: str) -> str:
    given = {"file": "" if file == "-" else file, "line": line, "title": title}
    properties = ",".join(f"{k}={_property(v)}" for k, v in given.items() if v not in ("", None))
    return f"::{level} {properties}::{_data(message)}"


def _data(text: str) -> str:
    """Escape a message as the runner's own toolkit does: percent first, then line ends."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return printable(escaped)


def _property(value: object) -> str:
    return _data(str(value)).replace(":", "%3A").replace(",", "%2C")
