"""A curve as an inline SVG: a band from the least to the greatest value of each stretch."""

from __future__ import annotations

from html import escape

from ..core import Finding
from ..core.curve import Curve
from ._curves import Scale
from ._words import printable

__all__ = ["plot_of"]

_WIDTH, _HEIGHT = 720, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 12, 12, 24
_THIN = 1.2  # least height of the band: where all values of a stretch are one


def plot_of(curve: Curve, finding: Finding | None = None) -> str:
    """Return an SVG of one curve, with the onset of `finding` and the window that holds it."""
    scale = Scale.of(curve)
    name = escape(printable(curve.series))
    said = f"{name}, steps {curve.steps[0]} to {curve.last_step}"
    if finding is not None and finding.onset_step is not None:
        said += f"; {escape(printable(str(finding.failure_mode)))} from step {finding.onset_step}"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">',
        f"<title>{said}</title>",
        _box("frame", _LEFT, _WIDTH - _LEFT - _RIGHT),
    ]
    parts += _onset(curve, finding)
    parts += _band(curve, scale)
    parts += _bad(curve)
    parts += _axes(curve, scale)
    return "".join([*parts, "</svg>"])


def _box(kind: str, x: float, width: float) -> str:
    height = _HEIGHT - _TOP - _BOTTOM
    return f'<rect class="{kind}" x="{x}" y="{_TOP}" width="{width}" height="{height}"/>'


def _x(curve: Curve, step: float) -> float:
    span = max(1, curve.last_step - curve.steps[0])
    share = min(1.0, max(0.0, (step - curve.steps[0]) / span))
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(height: float) -> float:
    return round(_HEIGHT - _BOTTOM - height * (_HEIGHT - _TOP - _BOTTOM), 1)


def _band(curve: Curve, scale: Scale | None) -> list[str]:
    """Return one closed shape for every run of stretches that have finite values."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for step, low, high in zip(curve.steps, curve.low, curve.high, strict=True):
        if low is None or high is None or scale is None:
            runs.append([])
            continue
        top, foot = _y(scale(high)), _y(scale(low))
        runs[-1].append((_x(curve, step), min(top, foot - _THIN), foot))
    shapes = []
    for run in runs:
        if len(run) == 1:
            x, top, foot = run[0]
            run = [run[0], (x + _THIN, top, foot)]
        if run:
            points = [f"{x},{top}" for x, top, _ in run]
            points += [f"{x},{foot}" for x, _, foot in reversed(run)]
            shapes.append(f'<polygon class="band" points="{" ".join(points)}"/>')
    return shapes


def _bad(curve: Curve) -> list[str]:
    """Return marks along the top where values are not finite."""
    marks = "".join(
        f"M{_x(curve, step)},{_TOP}v7"
        for step, bad in zip(curve.steps, curve.not_finite, strict=True)
        if bad
    )
    return [f'<path class="bad" d="{marks}"/>'] if marks else []


def _onset(curve: Curve, finding: Finding | None) -> list[str]:
    if finding is None or finding.onset_step is None:
        return []
    parts = []
    low, high = finding.evidence.get("onset_low"), finding.evidence.get("onset_high")
    if isinstance(low, int) and isinstance(high, int) and high > low:
        left = _x(curve, low)
        width = round(max(1.0, _x(curve, high) - left), 1)
        parts.append(_box("window", left, width))
    x = _x(curve, finding.onset_step)
    parts.append(f'<path class="onset" d="M{x},{_TOP}V{_HEIGHT - _BOTTOM}"/>')
    anchor = "start" if x < _WIDTH / 2 else "end"
    shift = 4 if anchor == "start" else -4
    parts.append(
        f'<text class="mark" x="{x + shift}" y="{_TOP + 18}" text-anchor="{anchor}">'
        f"step {finding.onset_step}</text>"
    )
    return parts


def _axes(curve: Curve, scale: Scale | None) -> list[str]:
    foot, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    labels = [
        (_LEFT, foot + 16, "start", str(curve.steps[0])),
        (right, foot + 16, "end", str(curve.last_step)),
    ]
    if scale is not None:
        labels += [(_LEFT - 6, _TOP + 9, "end", f"{scale.high:.4g}")]
        if scale.low != scale.high:
            labels += [(_LEFT - 6, foot, "end", f"{scale.low:.4g}")]
        if scale.logarithmic:
            labels += [(_LEFT - 6, (_TOP + foot) // 2 + 4, "end", "log")]
    return [
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, text in labels
    ]
