"""The frame of an HTML page: its head, its looks, in light and dark, on paper and on a phone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ._words import printable

__all__ = ["page"]

# The policy keeps the page to itself, whatever a name in a log may hold: no script, no fetch.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6472; --line: #d5dae1; --paper: #fff;
  --card: #f6f8fa; --band: #2f6fb0; --critical: #b3142d; --high: #d0432e; --medium: #a86a00;
  --low: #1f7f8c; --good: #1c7c43; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b3; --line: #38414d;
  --paper: #14181e; --card: #1c222a; --band: #6ea8e0; --critical: #ff6b7d; --high: #ff8a75;
  --medium: #e8ad4a; --low: #5fc3cf; --good: #5cc98a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 56rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .75rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; } h4 { font-size: 1rem; margin: 0 0 .4rem; }
small, .soft, figcaption, summary, dt { color: var(--soft); font-weight: normal; }
.verdict { font-size: 1.1rem; margin: 0 0 1rem; }
.pill { border-radius: 1rem; color: var(--paper); background: var(--medium); font-weight: 600;
  padding: .1rem .7rem; white-space: nowrap; }
.pill.failures { background: var(--critical); } .pill.healthy { background: var(--good); }
article { background: var(--card); border-left: 4px solid var(--low); border-radius: 4px;
  margin: 0 0 1rem; padding: .8rem 1rem; }
article p { margin: .2rem 0 .5rem; }
article.critical { border-color: var(--critical); } article.high { border-color: var(--high); }
article.medium { border-color: var(--medium); }
.level { color: var(--low); } .critical .level { color: var(--critical); }
.high .level { color: var(--high); } .medium .level { color: var(--medium); }
figure { margin: .5rem 0; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .frame { fill: var(--paper); stroke: var(--line); }
svg .band { fill: var(--band); stroke: var(--band); stroke-width: 1; stroke-linejoin: round; }
svg .bad, svg .onset { stroke: var(--critical); stroke-width: 1.5; fill: none; }
svg .onset { stroke-dasharray: 4 3; } svg .mark { fill: var(--critical); }
svg .window { fill: var(--critical); opacity: .15; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .4rem 0; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
ul, ol { margin: .3rem 0 .6rem; padding-left: 1.3rem; } summary { cursor: pointer; }
.cause > summary { color: var(--ink); padding: .2rem 0; } .cause > p { margin: .3rem 0; }
.do { font-weight: 600; margin-bottom: 0 !important; } meter { width: 5rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem .35rem 0; text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
th { white-space: nowrap; } td:first-child { overflow-wrap: anywhere; min-width: 9rem; }
a { color: var(--band); }
@media print { body { max-width: none; } article { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page; what is in `body` is HTML already, `title` is not."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(printable(title))}</title>",
            f"<style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>",
        ]
    )
