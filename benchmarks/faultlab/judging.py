"""What the tool says of the laboratory's runs, against the truth."""

from __future__ import annotations

import collections
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from families import CALIBRATION, HELD_OUT
from published import RULES

from ml_systems_debugger import MLSystemsDebugger, Severity, SignalSet
from ml_systems_debugger.attribution.calibration import ByEvidence, Calibration, Platt
from ml_systems_debugger.configuration import Configuration
from ml_systems_debugger.core import word
from ml_systems_debugger.evaluation._intervals import wilson
from ml_systems_debugger.ingestion import open_source

_MINIMAL = ("loss", "lr", "grad_norm")


@dataclass
class Verdict:
    """One run, as it was judged."""

    name: str
    family: str
    fault: str
    healthy: bool
    worst: str | None
    found: dict[str, str]  # mode -> severity
    detected: bool = False
    onset_error: int | None = None
    layer_right: bool | None = None
    replica_right: bool | None = None
    top1: bool | None = None
    top3: bool | None = None
    confidence: float | None = None
    cause: str = ""
    rules: dict[str, bool] | None = None


def judge_one(
    item: tuple[str, dict[str, Any]], folder: Path, minimal: bool, sensitivity: float = 1.0
) -> Verdict:
    """Diagnose one run."""
    name, truth = item
    signals = SignalSet.of(open_source(folder / f"{name}.jsonl"))
    if minimal:
        kept = [
            s for s in signals.series
            if s.key.name in _MINIMAL and s.key.layer is None and s.key.split in (None, "train")
        ]  # fmt: skip
        signals = SignalSet(kept, signals.metadata)
    config = Configuration(sensitivity=sensitivity).uncalibrated()
    report = MLSystemsDebugger(config=config).debug(signals)
    healthy = truth["fault"].startswith("healthy")
    alarms = [d for d in report.failures if d.severity is not None and d.severity >= "medium"]
    verdict = Verdict(
        name, truth["family"], truth["fault"], healthy,
        None if report.worst_severity is None else str(report.worst_severity),
        {word(d.failure_mode): str(d.severity) for d in report.failures},
    )  # fmt: skip
    if report.attributions and alarms:
        first = report.attributions[0]
        verdict.confidence, verdict.cause = first.confidence, word(first.cause)
        verdict.top1 = False
    loss = signals.select("loss")
    train = [s for s in loss if s.key.split in (None, "train") and s.key.replica_id is None]
    norms = [s for s in signals.select("grad_norm") if s.key.layer is None]
    if train and norms:
        verdict.rules = {
            rule: found(train[0].values, norms[0].values) for rule, found in RULES.items()
        }
    if healthy:
        return verdict
    hits = [d for d in alarms if word(d.failure_mode) in truth["modes"]]
    verdict.detected = bool(hits)
    causes = [word(a.cause) for a in report.attributions]
    if verdict.top1 is not None:
        verdict.top1 = bool(causes) and causes[0] in truth["causes"]
        verdict.top3 = any(cause in truth["causes"] for cause in causes[:3])
    if not hits:
        return verdict
    onsets = [d.onset_step for d in hits if d.onset_step is not None]
    if onsets and truth["onset"] is not None:
        verdict.onset_error = min(onsets) - truth["onset"]
    findings = [f for d in hits for f in d.findings]
    if truth["layer"] is not None and not minimal:
        layers = [f.layer for f in findings if f.layer is not None]
        if layers:
            verdict.layer_right = _stem(layers[0]) == _stem(truth["layer"])
    if truth["replica"] is not None and not minimal:
        replicas = [f.replica_id for f in findings if f.replica_id is not None]
        if replicas:
            verdict.replica_right = str(replicas[0]) == str(truth["replica"])
    return verdict


def _stem(layer: str) -> str:
    return layer.removesuffix(".weight").removesuffix(".bias").replace("acts", "layers")


def judge(
    folder: Path, minimal: bool, write: Path | None, workers: int, verbose: bool,
    sensitivity: float = 1.0, only_calibration: bool = False,
) -> None:  # fmt: skip
    """Judge all runs of a folder and print the tables."""
    labels = json.loads((folder / "labels.json").read_text())
    three = {k: v for k, v in labels.items() if v["minimal"] and v["replica"] is None
             and "replicas" not in v["fault"]}  # fmt: skip
    if minimal:
        labels = three
    if only_calibration:
        labels = {k: v for k, v in labels.items() if v["family"] in CALIBRATION}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        work = partial(judge_one, folder=folder, minimal=minimal, sensitivity=sensitivity)
        verdicts = list(pool.map(work, sorted(labels.items()), chunksize=8))
        few = verdicts
        if not minimal and write is not None:  # the calibration that is shipped holds both
            work = partial(judge_one, folder=folder, minimal=True, sensitivity=sensitivity)
            own = sorted((k, v) for k, v in three.items() if v["family"] in CALIBRATION)
            few = list(pool.map(work, own, chunksize=8))
    calibration, learnt = fitted(verdicts)
    for title, families in (("calibration", CALIBRATION), ("held out", HELD_OUT)):
        here = [v for v in verdicts if v.family in families]
        print(f"\n== {title}: {', '.join(families)}")
        if here:
            quality(here, labels, calibration, minimal)
    if verbose:
        details(list(verdicts))
    if write is not None:
        narrow, learnt_few = fitted(few)
        about = {"wide": provenance(learnt, labels), "narrow": provenance(learnt_few, three)}
        write.write_text(json.dumps({
            "calibration": {**ByEvidence(calibration, narrow).to_dict(), "provenance": about},
            "verdicts": [asdict(v) for v in verdicts],
        }, indent=1))  # fmt: skip


def fitted(verdicts: list[Verdict]) -> tuple[Platt, list[Verdict]]:
    """Return the calibration that the calibration families teach, and what it was learnt from."""
    learnt = [v for v in verdicts if v.family in CALIBRATION and v.confidence is not None]
    held = Platt.fit([v.confidence or 0.0 for v in learnt], [bool(v.top1) for v in learnt])
    return held, learnt


def provenance(learnt: list[Verdict], labels: dict[str, Any]) -> dict[str, Any]:
    """Return what a calibration was learnt from."""
    return {
        "made_by": "benchmarks/faultlab/lab.py judge RUNS --write FILE",
        "families": list(CALIBRATION),
        "runs": sum(label["family"] in CALIBRATION for label in labels.values()),
        "predictions": len(learnt),
        "right": sum(bool(v.top1) for v in learnt),
    }


def share(hits: int, of: int) -> str:
    if not of:
        return "-"
    low, high = wilson(hits, of)
    return f"{hits} of {of} ({hits / of:.3f}, {low:.3f}-{high:.3f})"


def quality(
    verdicts: list[Verdict], labels: dict[str, Any], calibration: Calibration, minimal: bool
) -> None:
    """Print the quality of one set of families."""
    faulty = [v for v in verdicts if not v.healthy]
    healthy = [v for v in verdicts if v.healthy]
    print("detected", share(sum(v.detected for v in faulty), len(faulty)))
    for level in ("high", "medium"):
        alarms = sum(v.worst is not None and Severity(v.worst) >= level for v in healthy)
        print(f"healthy runs with an alarm at {level} or above", share(alarms, len(healthy)))
    abrupt = [
        abs(v.onset_error) for v in faulty
        if v.onset_error is not None and labels[v.name]["abrupt"]
    ]  # fmt: skip
    if abrupt:
        print(f"onset error of {len(abrupt)} abrupt faults: median {statistics.median(abrupt):g}, "
              f"90th percentile {np.quantile(abrupt, 0.9):g}")  # fmt: skip
    if not minimal:
        for what in ("layer", "replica"):
            known = [getattr(v, f"{what}_right") for v in faulty]
            known = [k for k in known if k is not None]
            print(f"right {what}", share(sum(known), len(known)))
    found = [v for v in faulty if v.detected]
    print("cause top-1", share(sum(bool(v.top1) for v in found), len(found)))
    print("cause top-3", share(sum(bool(v.top3) for v in found), len(found)))
    made = [v for v in verdicts if v.confidence is not None]
    if made:
        p = np.array([calibration(v.confidence or 0.0) for v in made])
        y = np.array([bool(v.top1) for v in made], float)
        raw = np.array([v.confidence for v in made], float)
        briers = [float(np.mean((held - y) ** 2)) for held in (p, raw)]
        print(
            f"{len(made)} predictions: Brier {briers[0]:.3f} (raw {briers[1]:.3f}), "
            f"ECE {ece(p, y):.3f} ({interval(p, y)}; raw {ece(raw, y):.3f})"
        )
    for rule in RULES:
        with_rule = [v for v in verdicts if v.rules is not None]
        bad = [v for v in with_rule if not v.healthy and labels[v.name]["minimal"]]
        good = [v for v in with_rule if v.healthy]
        found, alarmed = (
            share(sum(v.rules[rule] for v in here if v.rules), len(here)) for here in (bad, good)
        )
        print(f"{rule}: found {found}, healthy alarmed {alarmed}")


def ece(p: Any, y: Any, bins: int = 10) -> float:
    """Return the expected calibration error over equally full bins."""
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(len(i) * abs(p[i].mean() - y[i].mean()) for i in parts if len(i)) / len(p))


def interval(p: Any, y: Any, rounds: int = 500) -> str:
    """Return the 95 % interval of the calibration error, by the bootstrap."""
    g = np.random.default_rng(0)
    picks = (g.integers(0, len(p), len(p)) for _ in range(rounds))
    low, high = np.quantile([ece(p[pick], y[pick]) for pick in picks], (0.025, 0.975))
    return f"{low:.3f}-{high:.3f}"


def details(verdicts: list[Verdict]) -> None:
    """Print what went wrong, by fault."""
    by = collections.defaultdict(list)
    for v in verdicts:
        by[v.fault].append(v)
    for fault, here in sorted(by.items()):
        if here[0].healthy:
            bad = [v for v in here if v.worst in ("medium", "high", "critical")]
            for v in bad:
                print(f"ALARM {v.name}: {v.found} cause {v.cause}")
            continue
        hit, top = sum(v.detected for v in here), sum(bool(v.top1) for v in here)
        errors = [v.onset_error for v in here]
        layers = [v.layer_right for v in here if v.layer_right is not None]
        replicas = [v.replica_right for v in here if v.replica_right is not None]
        print(
            f"{fault}: detected {hit}/{len(here)}, top-1 {top}, onset errors {errors}, "
            f"layers {layers}, replicas {replicas}"
        )
        for v in here:
            if not v.detected or not v.top1:
                print(f"   {v.name}: {v.found} -> {v.cause}")
