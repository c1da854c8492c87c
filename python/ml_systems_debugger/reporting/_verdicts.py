"""What the formats that machines read share: they write verdicts, of runs and checkpoints alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ..core import BaseReporter, Severity
from ..core.verdict import Verdict

__all__ = ["VerdictReporter", "uri_of"]


class VerdictReporter(BaseReporter):
    """Writes verdicts, one or several as one document."""

    def render(
        self,
        report: Any,
        *,
        color: bool = False,  # noqa: ARG002 - no colours here
        fail_on: Severity | str | None = Severity.HIGH,
    ) -> str:
        """Return a report as text.

        Parameters
        ----------
        report : Verdict, or anything with ``to_verdict()``
            As `DebugReport` and `CheckpointReport`.
        color : bool
            Of no meaning here.
        fail_on : Severity, str or None
            As for `render_all`.
        """
        verdict = report if isinstance(report, Verdict) else report.to_verdict()
        return self.render_all([verdict], fail_on=fail_on)

    @abstractmethod
    def render_all(
        self, verdicts: Sequence[Verdict], *, fail_on: Severity | str | None = Severity.HIGH
    ) -> str:
        """Return several verdicts as one document.

        Parameters
        ----------
        verdicts : sequence of Verdict
        fail_on : Severity, str or None
            Where the format knows failed and passed only: failed from here on; None for never.
        """


def uri_of(path: str) -> str:
    """Return a file's path as a URI reference (RFC 3986): relative where the path is.

    Examples
    --------
    >>> uri_of("runs/a b:1.csv"), uri_of("/tmp/x")
    ('runs/a%20b%3A1.csv', 'file:///tmp/x')
    >>> uri_of("s3://bucket/key")
    's3://bucket/key'
    """
    scheme, separator, rest = path.partition("://")
    if separator and scheme.isalnum():
        return f"{scheme.lower()}://{_quoted(rest)}"
    plain = _quoted(path.replace("\\", "/") if path[1:3] == ":\\" else path)
    return f"file://{plain}" if plain.startswith("/") else plain


def _quoted(path: str) -> str:
    try:
        raw = path.encode("utf-8", "surrogateescape")  # the bytes of a name that is no text
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "surrogatepass")
    return quote(raw, safe="/~!$&'()*+,;=@")
