"""Reports as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree  # only written here, never parsed

from ..core import Severity, reporters
from ..core.verdict import Check, Notice, Verdict
from ._verdicts import VerdictReporter
from ._words import printable

__all__ = ["JUnitReporter"]

_LINES = 100  # findings of one check that are written out


@reporters.register("junit")
class JUnitReporter(VerdictReporter):
    """Writes one suite for each report and one test case for each check or family of tensors.

    A case fails from `fail_on` on, with the worst severity as the failure's type; what is less
    is its output. A check that could not be made is skipped with the reason, one that broke and
    input that was not read are errors.
    """

    def render_all(
        self, verdicts: Sequence[Verdict], *, fail_on: Severity | str | None = Severity.HIGH
    ) -> str:
        """Return the reports as one XML document (version 1.0, ASCII with references)."""
        least = None if fail_on is None else Severity(fail_on)
        root = ElementTree.Element("testsuites", name="mlsd")
        for verdict in verdicts:
            root.append(_suite(verdict, least))
        for key in ("tests", "failures", "errors", "skipped"):
            root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
        ElementTree.indent(root)
        out: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
        return out.decode()


def _suite(verdict: Verdict, least: Severity | None) -> ElementTree.Element:
    name = printable(verdict.path) or "run"
    by_check: dict[str, list[Notice]] = defaultdict(list)
    for notice in verdict.notices:
        by_check[notice.check].append(notice)
    known = {check.name for check in verdict.checks}
    checks = [*verdict.checks, *(Check(c) for c in by_check if c not in known)]
    suite = ElementTree.Element("testsuite", name=name)
    cases = [_case(name, check, by_check.get(check.name, ()), least) for check in checks]
    cases.append(_read(name, verdict))
    counts = {tag: sum(c.find(tag) is not None for c in cases)
              for tag in ("failure", "error", "skipped")}  # fmt: skip
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    suite.set("time", "0")
    # The schemas want it in front. A job that could not be judged has no failed case either.
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="status", value=printable(verdict.status))
    suite.extend(cases)
    if verdict.summary:
        ElementTree.SubElement(suite, "system-out").text = printable(verdict.summary)
    return suite


def _case(
    suite: str, check: Check, notices: Sequence[Notice], least: Severity | None
) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=suite, name=printable(check.name) or "check", time="0"
    )
    failed = [n for n in notices if least is not None and n.severity >= least]
    rest = [n for n in notices if least is None or n.severity < least]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        failure = ElementTree.SubElement(
            case, "failure", type=failed[0].severity.value,
            message=printable(f"{failed[0].code}: {failed[0].message}{more}"),
        )  # fmt: skip
        failure.text = _lines(failed)
    elif check.broken:
        message = printable(check.broken)
        ElementTree.SubElement(case, "error", type="broken", message=message)
    elif check.skipped:
        ElementTree.SubElement(case, "skipped", message=printable(check.skipped))
    if rest:
        ElementTree.SubElement(case, "system-out").text = _lines(rest)
    return case


def _lines(notices: Iterable[Notice]) -> str:
    lines = [
        printable(
            f"{n.severity} {n.code}: {''.join(f'{p.kind} {p.name}: ' for p in n.places)}{n.message}"
        )
        for n in notices
    ]
    if len(lines) > _LINES:
        lines[_LINES:] = [f"and {len(lines) - _LINES} more"]
    return "\n".join(lines)


def _read(suite: str, verdict: Verdict) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=suite, name="all input was read", time="0")
    if verdict.unread:
        error = ElementTree.SubElement(
            case, "error", type="unread", message=printable(verdict.unread[0])
        )
        error.text = "\n".join(printable(text) for text in verdict.unread[:_LINES])
    return case
