"""Reports as one HTML file: nothing is fetched, no script runs, curves are drawn in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..core import (
    AttributionHypothesis,
    BaseReporter,
    DebugReport,
    DetectionResult,
    Finding,
    reporters,
    word,
)
from ..core.curve import Curve
from ._curves import curve_named
from ._notes import notes_of
from ._page import page
from ._svg import plot_of
from ._words import (
    against_of,
    by_story,
    evidence_pairs,
    first_line,
    is_troubled,
    percent,
    place_of,
    printable,
    reached_of,
    rule_of,
    shown_findings,
    span_of,
    window_of,
)

__all__ = ["HTMLReporter", "many_as_html"]

_NOTES = 10


@reporters.register("html")
class HTMLReporter(BaseReporter):
    """Writes one report as a page of its own, to be opened in a browser or attached to a ticket."""

    def render(self, report: DebugReport, *, title: str = "") -> str:
        """Return the page.

        Parameters
        ----------
        report : DebugReport
        title : str
            Of the page; default the source of the run, where it is known.
        """
        name = title or str(report.metadata.get("source", "")) or "a run"
        return page(f"{report.status}: {name}", [_heading(name, 1), *_report(report)])


def many_as_html(reports: Sequence[tuple[str, DebugReport]]) -> str:
    """Return one page of several runs: a table of all, then each that is not healthy."""
    rows = []
    for at, (path, report) in enumerate(reports):
        top = report.failures[0] if report.failures else None
        cause = report.attributions[0] if report.attributions else None
        where = "" if top is None else place_of(top.onset_step, top.layer, top.replica_id)
        name = _text(path)
        if is_troubled(report):
            name = f'<a href="#run{at}">{name}</a>'
        rows.append(
            f"<tr><td>{name}</td>"
            f"<td>{_pill(report)}</td><td>{_text(reached_of(report))}</td>"
            f"<td>{_text(where or '-')}</td><td>{_text(_cause_words(cause))}</td></tr>"
        )
    headings = "".join(
        f"<th>{name}</th>" for name in ("run", "status", "worst finding", "where", "likely cause")
    )
    body = [
        _heading(f"{len(reports)} runs", 1),
        f'<div class="wide"><table><thead><tr>{headings}</tr></thead><tbody>',
        *rows,
        "</tbody></table></div>",
    ]
    for at, (path, report) in enumerate(reports):
        if is_troubled(report):
            body += [f'<section id="run{at}">', _heading(path, 2), *_report(report), "</section>"]
    return page(f"{len(reports)} runs", body)


def _cause_words(cause: AttributionHypothesis | None) -> str:
    return "-" if cause is None else f"{word(cause.cause)} ({percent(cause.confidence)})"


def _report(report: DebugReport) -> list[str]:
    body = [f'<p class="verdict">{_pill(report)} {_text(report.summary)}</p>']
    body += _causes(report)
    if report.failures:
        body.append(_heading("Findings", 3))
    curves, told = report.curves, shown_findings(report)
    for shown in told:
        body += _detection(curves, shown.result, shown.findings, shown.rest)
    seen = {str(shown.findings[0].evidence.get("series", "")) for shown in told}
    body += _plots([one for one in curves if one.series not in seen])
    body += _list("The source says", notes_of(report)[:_NOTES])
    failed = [f"{d.detector_name} failed: {first_line(d.reason)}" for d in report.failed_checks]
    unread = [first_line(text) for text in report.unread]
    more = [f"and {len(unread) - _NOTES} more"] if len(unread) > _NOTES else []
    body += _list("Not checked", [*failed, *unread[:_NOTES], *more])
    if report.skipped:
        items = "".join(
            f"<li><b>{_text(s.detector)}</b>: {_text(s.reason)}</li>" for s in report.skipped
        )
        count = f"{len(report.skipped)} checks do not apply"
        body.append(f"<details><summary>{count}</summary><ul>{items}</ul></details>")
    return body


def _detection(
    curves: Sequence[Curve], result: DetectionResult, findings: Sequence[Finding], rest: str
) -> list[str]:
    worst, *others = findings
    level = worst.severity.value
    where = f"{span_of(worst)} ({percent(worst.confidence)} sure)"
    head = f'<span class="level">{level}</span> {_text(word(worst.failure_mode))}'
    body = [
        f'<article class="{level}">',
        f"<h4>{head} <small>{_text(where)}</small></h4>",
        f"<p>{_text(worst.message)}</p>",
    ]
    curve = curve_named(curves, worst.evidence.get("series"))
    if curve is not None:
        body += [f"<figure><figcaption>{_text(curve.series)}</figcaption>",
                 plot_of(curve, worst), "</figure>"]  # fmt: skip
    body += _details(worst, result)
    lines = [
        f"{span_of(one)}: {one.message} ({one.severity.value}, {percent(one.confidence)} sure)"
        for one in others
    ]
    if lines or rest:
        items = "".join(f"<li>{_text(line)}</li>" for line in [*lines, *([rest] if rest else [])])
        body.append(f"<details open><summary>also</summary><ul>{items}</ul></details>")
    return [*body, "</article>"]


def _details(finding: Finding, result: DetectionResult) -> list[str]:
    rule, source = rule_of(finding), result.detector_name
    told = [
        ("window", window_of(finding)),
        ("against", against_of(finding)),
        ("rule", f"{rule} of {source}" if rule and source else rule or source),
        *evidence_pairs(finding.evidence),
    ]
    pairs = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in told if value
    )
    return [f"<details><summary>evidence</summary><dl>{pairs}</dl></details>"] if pairs else []


def _causes(report: DebugReport) -> list[str]:
    body: list[str] = []
    stories = by_story(report.attributions)
    for story, causes in stories:
        of = f" of {story}" if len(stories) > 1 and story else ""
        body.append(_heading(f"Likely causes{of}", 3))
        for at, hypothesis in enumerate(causes):
            body += _cause(hypothesis, best=at == 0)
    return body


def _cause(hypothesis: AttributionHypothesis, best: bool) -> list[str]:
    share = percent(hypothesis.confidence)
    head = (
        f'<meter min="0" max="1" value="{hypothesis.confidence:.3f}">{_text(share)}</meter> '
        f"{_text(share)} <b>{_text(word(hypothesis.cause))}</b>"
    )
    said = [
        *(f"for: {text}" for text in hypothesis.evidence_for),
        *(f"against: {text}" for text in hypothesis.evidence_against),
        *(f"ruled out: {text}" for text in hypothesis.ruled_out),
    ]
    hints = "".join(f"<li>{_text(hint)}</li>" for hint in hypothesis.remediation_hints)
    body = [
        f'<details class="cause"{" open" if best else ""}><summary>{head}</summary>',
        f"<p>{_text(hypothesis.hypothesis)}</p>",
    ]
    if hints:
        body.append(f'<p class="do">What to do</p><ol>{hints}</ol>')
    if said:
        items = "".join(f"<li>{_text(text)}</li>" for text in said)
        body.append(f"<details><summary>what speaks for it and against</summary>"
                    f"<ul>{items}</ul></details>")  # fmt: skip
    return [*body, "</details>"]


def _plots(left: Sequence[Curve]) -> list[str]:
    """Return the curves that no finding has shown."""
    if not left:
        return []
    plots = [
        f"<figure><figcaption>{_text(one.series)}</figcaption>{plot_of(one)}</figure>"
        for one in left
    ]
    return [_heading("Curves", 3), *plots]


def _list(title: str, texts: Iterable[str]) -> list[str]:
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return [_heading(title, 3), f"<ul>{items}</ul>"] if items else []


def _pill(report: DebugReport) -> str:
    assert report.status is not None  # set by the report itself  # noqa: S101
    status = report.status.value
    return f'<span class="pill {status}">{status.replace("_", " ")}</span>'


def _heading(text: str, level: int) -> str:
    return f"<h{level}>{_text(text)}</h{level}>"


def _text(text: object) -> str:
    """Return text as HTML: names come from files, so control characters are shown escaped."""
    return escape(printable(text))
