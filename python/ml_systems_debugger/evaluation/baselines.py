"""What is usual in one's own healthy runs: how sensitive each detector can be there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..configuration import Configuration
from ..core import BaseDetector, FrozenDict, Severity
from ..debugger import MLSystemsDebugger
from .labelled_runs import files_of
from .labels import Label

__all__ = ["Baselines", "learn_baselines"]

_LEAST = 10  # healthy runs that say something
_LADDER = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.25)


@dataclass(frozen=True, slots=True)
class Baselines:
    """Sensitivities that keep the false alarms on healthy history at a rate.

    Parameters
    ----------
    runs : int
        Healthy runs they were learnt from.
    rate : float
        Part of those that may alarm, per detector.
    sensitivities : mapping of str to float
        For the detectors that alarmed more often at 1.
    alarms : mapping of str to (int, int)
        Of those, healthy runs with an alarm at sensitivity 1 and at the learnt one.
    """

    runs: int
    rate: float
    sensitivities: Mapping[str, float]
    alarms: Mapping[str, tuple[int, int]]

    def to_dict(self) -> dict[str, object]:
        """Return it in terms of JSON, for the file that ``calibration`` names."""
        return {
            "sensitivities": dict(self.sensitivities),
            "baselines": {
                "healthy_runs": self.runs,
                "rate": self.rate,
                "alarms": {name: list(counts) for name, counts in self.alarms.items()},
            },
        }


def learn_baselines(
    folder: str | os.PathLike[str],
    labels: Sequence[Label],
    config: Configuration | None = None,
    at_least: Severity = Severity.MEDIUM,
    rate: float = 0.02,
) -> Baselines | None:
    """Return what healthy runs teach; None where fewer than ten are labelled so.

    A detector that alarms on more than `rate` of them is made less sensitive,
    step by step down to a quarter, until it does not, or no step helps.

    Parameters
    ----------
    folder : path
        Holds one file per run.
    labels : sequence of Label
        Of which the healthy ones are read.
    config : Configuration, optional
        With which they are diagnosed.
    at_least : Severity
        What counts as an alarm.
    rate : float
        From 0 to 1.
    """
    given = Configuration() if config is None else config
    given = replace(given, sensitivity=1.0, sensitivities=FrozenDict())
    files = files_of(folder)
    healthy = [files[label.name] for label in labels if label.healthy and label.name in files]
    if len(healthy) < _LEAST:
        return None
    known = {one.name: one for one in given.detectors()}
    loud: dict[str, list[Path]] = {}
    debugger = MLSystemsDebugger(config=given)
    for path in healthy:
        for result in debugger.debug(path).failures:
            if result.severity is not None and result.severity >= at_least:
                loud.setdefault(result.detector_name, []).append(path)
    sensitivities: dict[str, float] = {}
    alarms: dict[str, tuple[int, int]] = {}
    for name, paths in sorted(loud.items()):
        if len(paths) > rate * len(healthy) and name in known:
            found = _quieter(
                known[name], _alarming(healthy, at_least, given), int(rate * len(healthy))
            )
            if found is not None:
                sensitivities[name], after = found
                alarms[name] = (len(paths), after)
    return Baselines(len(healthy), rate, sensitivities, alarms)


def _alarming(
    paths: Sequence[Path], at_least: Severity, config: Configuration
) -> Callable[[BaseDetector], int]:
    """Return how to count the runs on which a detector alarms."""

    def count(detector: BaseDetector) -> int:
        debugger = MLSystemsDebugger([detector], config=config)
        reports = (debugger.debug(path) for path in paths)
        return sum(
            any(d.severity is not None and d.severity >= at_least for d in report.failures)
            for report in reports
        )

    return count


def _quieter(
    detector: BaseDetector, alarms: Callable[[BaseDetector], int], allowed: int
) -> tuple[float, int] | None:
    """Return the highest sensitivity with few enough alarms, else the quietest; and its alarms."""
    best: tuple[float, int] | None = None
    for sensitivity in _LADDER[1:]:
        other = detector.at_sensitivity(sensitivity)
        if other is detector:
            return None  # it has no threshold, or they are set
        after = alarms(other)
        if best is None or after < best[1]:
            best = (sensitivity, after)
        if after <= allowed:
            break
    return best
