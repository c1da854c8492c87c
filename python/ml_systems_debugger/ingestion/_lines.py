"""One line of a log as names and numbers, and lines like it at a fraction of the cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..core import canonical
from ._dialects import DIALECTS, Dialect, unit_factor
from ._events import is_code

__all__ = ["ANSI", "Parsed", "Template", "parse_line"]

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07)")

_NUMBER = (
    r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|(?:[nN][aA][nN]|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)(?![A-Za-z]))"
)
_WORD = r"(?!(?i:nan|inf|infinity)\b)[A-Za-z_][\w./\-@]*"
_ONE_NUMBER = re.compile(_NUMBER)
_UNIT = r"(?P<unit>\s?(?:[num\u00b5]?s|sec|min|[kKMGT]i?B|%)(?![\w/])|[kKMGT]i?B(?=\())?"
# Behind a value neither a word, nor more of a date, a time or a version may follow.
_END = r"(?![\w])(?![.:\-]\d)"
_PAIR = re.compile(
    rf"""(?<![\w.])(?P<key>{_WORD}(?:\ {_WORD}){{0,2}})['"]?
    (?P<sep>\s*[:=]\s*|\ +)[\['"]?
    (?P<value>{_NUMBER}){_UNIT}(?:/\s*\d+)?{_END}""",
    re.VERBOSE,
)
_BAR_FIELD = re.compile(
    rf"(?:^|\|)\s*(?P<key>[A-Za-z][^|:=]*?)\s*[:=]\s*(?P<value>{_NUMBER})\s*(?=\||$)"
)
_BAR_STEP = re.compile(r"\biteration\s+(?P<value>\d+)")
_RANK = re.compile(r"\[?(?:global[ _]?)?\brank[ =:_]?\s?(?P<value>\d+)\b\]?", re.IGNORECASE)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,](?:\d{6}|\d{3}))?(?:Z|[+-]\d\d:\d\d)?(?!\d)"
)
_BAR_OF_TQDM = re.compile(r"\|\s*(?P<value>\d+)/\d+\s+\[")
_FILE = re.compile(r"\.(?:py|cc|cpp|cu|h|so)$")
_WHERE = frozenset({"step", "epoch", "replica_id", "timestamp", "run", "seed", "layer_name"})
_TELLING = frozenset(
    {"loss", "accuracy", "perplexity", "grad_norm", "loss_scale", "tokens_per_second", "step_time"}
)


@dataclass(frozen=True, slots=True)
class Field:
    """A number in a line: what it is and where it stands."""

    name: str
    start: int
    end: int
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line that holds measurements."""

    fields: tuple[Field, ...]
    constants: tuple[tuple[str, float], ...]
    dialect: str


def parse_line(line: str) -> Parsed | None:
    """Find the measurements in a line, or return None where it holds none.

    A line counts where it says a step or an epoch together with something
    else, or where it names a quantity that tells how training goes (a loss, an
    accuracy, a gradient norm); other lines with numbers are configuration,
    prose or code.
    """
    dialect = next((d for d in DIALECTS if d.marker.search(line)), None)
    fields = _fields(line, dialect)
    if not fields:
        return None
    names = [canonical(field.name) for field in fields]
    measured = {parts.name for parts in names if parts.name not in _WHERE}
    placed = any(parts.name in ("step", "epoch") for parts in names)
    constants = () if dialect is None else tuple(dialect.constants.items())
    if not measured and not constants:
        # `Epoch 3/10` on a line of its own places the lines below it.
        alone = placed and line[: fields[0].start].strip().isalpha() and not is_code(line)
        return Parsed(tuple(fields), (), "") if alone else None
    telling = any(parts.known and parts.name in _TELLING for parts in names)
    if dialect is None and (not (placed or telling) or is_code(line) or _assigns(line, fields)):
        return None
    return Parsed(tuple(fields), constants, "" if dialect is None else dialect.name)


def _assigns(line: str, fields: list[Field]) -> bool:
    """Return whether the only pair is spaced like an assignment in code or configuration."""
    return len(fields) == 1 and line[: fields[0].start].rstrip(" ['\"").endswith(" =")


def _fields(line: str, dialect: Dialect | None) -> list[Field]:
    names: Mapping[str, str] = {} if dialect is None else dialect.names
    found: dict[str, Field] = {}
    spans: list[tuple[int, int]] = []

    def add(name: str, start: int, end: int, unit: str = "") -> None:
        if name and name not in found and not any(a < end and start < b for a, b in spans):
            name, _, own_unit = name.partition(" (")
            known = canonical(name)
            if known.known and known.name in _WHERE and known[1:3] == (None, None):
                name = known.name  # one line says `iter`, the next one `step`
            factor = unit_factor(known.name, unit or own_unit.rstrip(")"))
            found[name] = Field(name, start, end, factor)
            spans.append((start, end))

    if (moment := _TIME.search(line)) is not None:
        add("timestamp", *moment.span())
    if (rank := _RANK.search(line)) is not None:
        add("replica_id", *rank.span("value"))
    if (bar := _BAR_OF_TQDM.search(line)) is not None:
        add("step", *bar.span("value"))
    if dialect is not None and dialect.bars:
        if (step := _BAR_STEP.search(line)) is not None:
            add("step", *step.span("value"))
        for match in _BAR_FIELD.finditer(line):
            key = "_".join(match["key"].lower().split())
            add(names.get(key, dialect.prefix + match["key"]), *match.span("value"))
        return sorted(found.values(), key=lambda field: field.start)
    apart = None if dialect is None or dialect.named is None else dialect.named.search(line)
    if apart is not None and _ONE_NUMBER.fullmatch(apart["value"]):
        add(apart["key"], *apart.span("value"))
    for match in _PAIR.finditer(line):
        name = _name(match["key"], match["sep"], names)
        add(name, *match.span("value"), match["unit"] or "")
    return sorted(found.values(), key=lambda field: field.start)


def _name(words: str, separator: str, names: Mapping[str, str]) -> str:
    """Return the quantity that up to three words before a value name, or "" for none."""
    parts = words.split(" ")
    for at in range(len(parts)):  # the longest known name first
        name = " ".join(parts[at:])
        key = "_".join(parts[at:]).lower()
        if key in names:
            return names[key]
        if canonical(name).known:
            return name
    if not separator.strip():  # `name value`, with only a blank between: known names alone
        return ""
    return "" if _FILE.search(parts[-1]) else parts[-1]


class Template:
    """A pattern made of one parsed line: matches lines that differ from it in numbers only."""

    __slots__ = ("match", "pattern")

    def __init__(self, line: str, parsed: Parsed) -> None:
        parts = []
        last = 0
        for field in parsed.fields:
            parts.append(_generalised(line[last : field.start]))
            number = field.name != "timestamp"
            parts.append(f"({_NUMBER})" if number else f"({_TIME.pattern})")
            last = field.end
        parts.append(_generalised(line[last:]))
        self.pattern = "".join(parts)
        self.match = re.compile(self.pattern).fullmatch


_VARYING = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])|\s+")


def _generalised(text: str) -> str:
    """Escape `text`, numbers that stand alone and white space left open."""
    parts = []
    last = 0
    for match in _VARYING.finditer(text):
        parts.append(re.escape(text[last : match.start()]))
        token = match[0]
        parts.append(r"\s+" if token.isspace() else r"\d+" + (r"\.\d+" if "." in token else ""))
        last = match.end()
    parts.append(re.escape(text[last:]))
    return "".join(parts)
