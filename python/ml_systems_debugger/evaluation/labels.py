"""`Label`: what is known of a run, and the file that holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..core import ConfigurationError, failure_mode, root_cause, word

__all__ = ["ACCEPTED_MODES", "Label", "read_labels"]

ACCEPTED_MODES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "healthy": frozenset(),
        "nonfinite": frozenset({"nan_detected", "inf_detected"}),
        "diverged": frozenset({"divergent_training", "exploding_gradients"}),
        "stuck": frozenset({"loss_plateau", "divergent_training"}),
    }
)
"""Outcome -> the failure modes that are a right answer to it."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one run.

    Parameters
    ----------
    name : str
        File name of the run without its suffixes.
    outcome : str
        ``healthy``, or what went wrong.
    accepted : frozenset of str
        Failure modes that are a right answer; empty for a healthy run.
    onset_step : int, optional
        Where it began, where that is known.
    causes : frozenset of str
        Root causes that are a right answer; empty where nobody knows.
    layer, replica_id : optional
        Where it began, where that is known.
    dismissed : frozenset of str
        Failure modes that somebody looked at and found to be none; an alarm of
        one is false even in a faulty run.
    """

    name: str
    outcome: str
    accepted: frozenset[str]
    onset_step: int | None = None
    causes: frozenset[str] = frozenset()
    layer: str | None = None
    replica_id: int | str | None = None
    dismissed: frozenset[str] = frozenset()

    @property
    def healthy(self) -> bool:
        """Whether nothing should be found."""
        return not self.accepted


def read_labels(path: str | os.PathLike[str]) -> tuple[Label, ...]:
    """Read a JSON object of run names.

    Each has ``outcome``, and ``accepted`` (failure modes) where the outcome is
    none of `ACCEPTED_MODES`; optionally ``onset_step``, ``causes``, ``layer``,
    ``replica_id`` and ``dismissed`` (failure modes), see `Label`.

    Raises
    ------
    ConfigurationError
        With the file, the run and the value, where it is not as said.
    """
    where = os.fspath(path)
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: an object of run names is needed, got {type(data)}")
    return tuple(_label(where, name, entry) for name, entry in data.items())


def _label(where: str, name: str, entry: Any) -> Label:
    if not isinstance(entry, dict) or not isinstance(entry.get("outcome"), str):
        raise ConfigurationError(f"{where}: run {name!r} has no outcome, got {entry!r}")
    outcome = entry["outcome"]
    accepted = entry.get("accepted", ACCEPTED_MODES.get(outcome))
    if not isinstance(accepted, (list, tuple, frozenset)):
        known = ", ".join(ACCEPTED_MODES)
        raise ConfigurationError(
            f"{where}: run {name!r} has the outcome {outcome!r}, which is none of {known}: "
            f"a list 'accepted' of failure modes is needed"
        )
    onset = entry.get("onset_step")
    if onset is not None and (isinstance(onset, bool) or not isinstance(onset, int)):
        raise ConfigurationError(f"{where}: run {name!r}: onset_step is an int, got {onset!r}")
    lists = {key: entry.get(key, ()) for key in ("causes", "dismissed")}
    for key, given in lists.items():
        if not isinstance(given, (list, tuple)):
            raise ConfigurationError(f"{where}: run {name!r}: {key} is a list, got {given!r}")
    try:
        return Label(
            name,
            outcome,
            frozenset(word(failure_mode(m)) for m in accepted),
            onset,
            frozenset(word(root_cause(c)) for c in lists["causes"]),
            entry.get("layer"),
            entry.get("replica_id"),
            frozenset(word(failure_mode(m)) for m in lists["dismissed"]),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: run {name!r}: {error}") from error
