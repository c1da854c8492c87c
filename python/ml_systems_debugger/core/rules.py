"""Attribution rules as data: what a finding, with its evidence, says of a cause."""

from __future__ import annotations

import operator
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .errors import ConfigurationError
from .parameters import check_range
from .vocabulary import FailureModeLike, RootCauseLike, failure_mode, root_cause

__all__ = ["AttributionRule", "Condition"]


def _one_of(value: Any, options: Any) -> bool:
    return value in options


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
        "in": _one_of,
    }
)
_PRESENCE = ("present", "absent")


@dataclass(frozen=True, slots=True)
class Condition:
    """One predicate on the facts of a case.

    Parameters
    ----------
    fact : str
        Name of a fact: a key of the finding's evidence (``ratio``), or with a
        prefix: ``finding.severity``, ``finding.layer``, ``context.optimizer``,
        ``mode.nan_detected`` (the earliest onset of that mode, absent where it
        was not found), ``lead.exploding_gradients`` (steps by which that mode
        began before this finding; negative: after), ``story.lr_jump`` (that key
        of the earliest finding of the same story that has it), ``quiet.loss_spike``
        (True where a check looked for that mode and found none).
    op : str
        ``==  !=  <  <=  >  >=  in  present  absent``.
    value : object
        What to compare with; unused for ``present`` and ``absent``.
    says : str
        The condition in words, for the evidence that people read.
    """

    fact: str
    op: str
    value: Any = None
    says: str = ""

    def __post_init__(self) -> None:
        if self.op not in _OPERATORS and self.op not in _PRESENCE:
            known = " ".join((*_OPERATORS, *_PRESENCE))
            raise ConfigurationError(
                f"condition on {self.fact!r}: op is one of {known}, got {self.op!r}"
            )

    def __str__(self) -> str:
        value = "" if self.op in _PRESENCE else f" {self.value}"
        return self.says or f"{self.fact} {self.op}{value}"

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Return whether it holds; a comparison with a fact that is not there does not."""
        if self.op in _PRESENCE:
            return (facts.get(self.fact) is not None) == (self.op == "present")
        found = facts.get(self.fact)
        if found is None:
            return False
        try:
            return bool(_OPERATORS[self.op](found, self.value))
        except (TypeError, ValueError):  # a word compared with a number; an array with anything
            return False


@dataclass(frozen=True, slots=True)
class AttributionRule:
    """A finding of `mode` under `when` is what `cause` would produce.

    Parameters
    ----------
    code : str
        Stable and unique, as ``EXP001``.
    mode : FailureMode or registered ``vendor:name``
        The finding it reads.
    cause : RootCause or registered ``vendor:name``
        What it speaks for.
    strength : float
        From 0 to 1: how often the cause is behind such a finding, before
        calibration (a link of a noisy-OR).
    hypothesis : str
        One sentence; ``{name}`` is replaced by the fact of that name.
    when : tuple of Condition
        All must hold.
    raises : tuple of (Condition, float)
        Each that holds adds a link of that strength.
    lowers : tuple of (Condition, float)
        Each that holds multiplies the odds by that factor (below 1), and is
        named as evidence against.
    remediation : tuple of str
        What to do, most useful first; ``{name}`` as in `hypothesis`.
    source : str
        Paper, library or rule that it rests on.
    """

    code: str
    mode: FailureModeLike
    cause: RootCauseLike
    strength: float
    hypothesis: str
    when: tuple[Condition, ...] = ()
    raises: tuple[tuple[Condition, float], ...] = ()
    lowers: tuple[tuple[Condition, float], ...] = ()
    remediation: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", failure_mode(self.mode))
        object.__setattr__(self, "cause", root_cause(self.cause))
        check_range(f"strength of rule {self.code}", self.strength, 0.0, 1.0)
        for _, weight in (*self.raises, *self.lowers):
            check_range(f"weight in rule {self.code}", weight, 0.0, 1.0)
        conditions = (*self.when, *(c for c, _ in (*self.raises, *self.lowers)))
        for template in (self.hypothesis, *self.remediation, *(c.says for c in conditions)):
            _check_template(self.code, template)


def _check_template(code: str, template: str) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigurationError(f"rule {code}: {error} in {template!r}") from error
    if "" in names:
        raise ConfigurationError(f"rule {code}: {{}} names no fact in {template!r}")
