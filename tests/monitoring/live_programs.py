"""Small real training programs, each with one planted fault, and the same without it.

python tests/monitoring/live_programs.py [--seeds 5]    prints the table of benchmarks/README.md
python tests/monitoring/live_programs.py --onsets       faults at other steps, healthy runs of 600
"""

from __future__ import annotations

import argparse
import inspect
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from ml_systems_debugger import AttributionHypothesis, Finding, Monitor, Severity
from ml_systems_debugger.monitoring import TraceResult

NAN = float("nan")


def line_of(mark: str) -> str:
    """Return file:line of the line of this file that ends with the comment ``# at: mark``."""
    here = inspect.getsourcefile(line_of)
    lines = Path(str(here)).read_text(encoding="utf-8").splitlines()
    (at,) = (n for n, text in enumerate(lines, 1) if text.endswith(f"# at: {mark}"))
    return f"{here}:{at}"


class Program:
    """A model, its optimizer, its batches and its loss; `bad` turns the fault on.

    ``producer`` is what a trace has to say, field by field (empty: the fault is
    none of non-finite values); ``modes`` are the findings that count, ``cause`` is
    what the report has to name first (empty: not judged).
    """

    onset: ClassVar[int] = 60
    within: ClassVar[int] = 1
    steps: ClassVar[int] = 100
    producer: ClassVar[dict[str, Any]] = {}
    cause: ClassVar[str] = ""
    modes: ClassVar[tuple[str, ...]] = ("nan_detected", "inf_detected")
    options: ClassVar[dict[str, Any]] = {}
    lr: ClassVar[float] = 1e-3

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.data = torch.Generator().manual_seed(1000 + seed)
        self.model = self.build()
        self.optimizer = torch.optim.Adam(self.model.parameters(), self.lr)

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
        )

    def normal(self, *shape: int) -> Any:
        return torch.randn(*shape, generator=self.data)

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        x = self.normal(64, 16)
        return x, x[:, :4].argmax(1)

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        return functional.cross_entropy(self.model(x), y)

    def disturb(self, step: int) -> None:
        """What the fault does to the run before a step, from `onset` on."""

    def clear(self, step: int, bad: bool) -> None:
        self.optimizer.zero_grad()

    def finish(self, bad: bool) -> None:
        self.optimizer.step()


class LogOfZero(Program):
    """A hand-written likelihood: the logarithm of a softmax that underflows."""

    cause: ClassVar = "invalid_operation"
    producer: ClassVar = {"phase": "forward", "op": "aten.log", "module": None, "mark": "log",
                          "kind": "invalid_operation"}  # fmt: skip

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        heat = 1e-3 if bad else 1.0
        p = functional.softmax(self.model(x) / heat, 1)
        return -torch.log(p)[torch.arange(len(y)), y].mean()  # at: log


class Unit(nn.Module):
    """Rows of length one, with or without an epsilon."""

    bad = False

    def forward(self, h: Any) -> Any:
        return h / (h.norm(dim=1, keepdim=True) + (0.0 if self.bad else 1e-6))  # at: norm


class ZeroNorm(Program):
    """A padding row through a normalisation without an epsilon."""

    cause: ClassVar = "invalid_operation"
    producer: ClassVar = {"phase": "forward", "op": "aten.div", "module": "0", "mark": "norm",
                          "kind": "invalid_operation"}  # fmt: skip

    def build(self) -> nn.Module:
        return nn.Sequential(Unit(), *super().build())

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        x, y = super().batch(step, bad)
        if step >= self.onset:
            x[-3:] = 0.0  # the last batch of a shard is padded: in the healthy run too
        return x, y

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        self.model[0].bad = bad
        return super().loss(bad, x, y)


class Attention(nn.Module):
    """One head over sequences, written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scaled = True
        self.gain = 1.0

    def forward(self, h: Any, mask: Any = None) -> Any:
        q, k, v = self.qkv(h).chunk(3, -1)
        scores = (self.gain * q) @ k.transpose(1, 2)  # at: scores
        scores = scores / math.sqrt(h.shape[-1]) if self.scaled else scores
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, :], float("-inf"))
        return self.out(torch.softmax(scores, -1) @ v)  # at: attention


class Sequences(nn.Module):
    """Embedding, attention, mean, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend, self.head = nn.Embedding(50, 32), Attention(32), nn.Linear(32, 4)

    def forward(self, ids: Any, mask: Any = None) -> Any:
        h = self.embed(ids)
        return self.head(torch.tanh(h + self.attend(h, mask)).mean(1))


class HalfOverflow(Program):
    """float16 autocast with a loss scaler: attention scores leave the range."""

    cause: ClassVar = "numerical_overflow"
    producer: ClassVar = {"phase": "forward", "module": "attend", "mark": "scores",
                          "kind": "overflow", "dtype": "float16"}  # fmt: skip

    def build(self) -> nn.Module:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        return Sequences()

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        ids = torch.randint(0, 50, (32, 12), generator=self.data)
        return ids, ids[:, 0] % 4

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        self.model.attend.gain = 1e5 if bad else 1.0
        with torch.autocast("cpu", dtype=torch.float16):
            return functional.cross_entropy(self.model(x).float(), y)


class BfloatRounding(Program):
    """bfloat16 autocast: 1 - p rounds to 0, and its logarithm is taken."""

    cause: ClassVar = "invalid_operation"
    producer: ClassVar = {"phase": "forward", "op": "aten.log", "mark": "bfloat",
                          "kind": "invalid_operation"}  # fmt: skip

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        x = self.normal(64, 16)
        return x * 4, (x.sum(1, keepdim=True) > 0).float()

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logit = self.model(x)
        if bad:
            p = torch.sigmoid(8 * logit)
            return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).float().mean()  # at: bfloat
        return functional.binary_cross_entropy_with_logits(8 * logit.float(), y)


class BadBatch(Program):
    """One missing value in one batch."""

    cause: ClassVar = "non_finite_input"
    producer: ClassVar = {"phase": "data", "name": "batch[0]", "kind": "non_finite_input",
                          "first_index": (17, 5)}  # fmt: skip

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        x, y = super().batch(step, bad)
        if bad and step == self.onset:
            x[17, 5] = NAN
        return x, y


class BackwardOnly(Program):
    """The length of a difference that is zero: finite forward, no derivative."""

    cause: ClassVar = "invalid_operation"
    producer: ClassVar = {"phase": "backward", "node": "SqrtBackward0", "mark": "sqrt",
                          "kind": "invalid_operation"}  # fmt: skip

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        a = self.model(x)
        b = a.detach() if bad else a.detach() + 0.1
        distance = torch.sqrt((a - b).square().sum(1))  # at: sqrt
        return functional.cross_entropy(a, y) + 0.01 * distance.mean()


class OptimizerState(Program):
    """A damaged value in Adam's second moment."""

    cause: ClassVar = "replica_data_corruption"
    within: ClassVar = 1
    producer: ClassVar = {"phase": "optimizer_state", "name": "2.weight.exp_avg_sq",
                          "first_index": (3, 5)}  # fmt: skip

    def disturb(self, step: int) -> None:
        if step == self.onset:
            self.optimizer.state[self.model[2].weight]["exp_avg_sq"][3, 5] = NAN


class EmbeddingRow(Program):
    """A row of an embedding is damaged."""

    cause: ClassVar = "replica_data_corruption"
    producer: ClassVar = {"phase": "parameter", "name": "embed.weight", "first_index": (7, 2)}

    def build(self) -> nn.Module:
        return Sequences()

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        ids = torch.randint(0, 50, (32, 12), generator=self.data)
        return ids, ids[:, 0] % 4

    def disturb(self, step: int) -> None:
        if step == self.onset:
            with torch.no_grad():
                self.model.embed.weight[7, 2] = NAN


class MaskedRow(Program):
    """A sequence of padding alone: every score of its rows is -Inf."""

    cause: ClassVar = "invalid_operation"
    producer: ClassVar = {"phase": "forward", "op": "aten._softmax", "module": "attend",
                          "mark": "attention", "kind": "fully_masked"}  # fmt: skip

    def build(self) -> nn.Module:
        return Sequences()

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        ids = torch.randint(0, 50, (32, 12), generator=self.data)
        lengths = torch.randint(4, 13, (32,), generator=self.data)
        if bad and step == self.onset:
            lengths[11] = 0
        return ids, torch.arange(12)[None] >= lengths[:, None], ids[:, 0] % 4

    def loss(self, bad: bool, x: Any, mask: Any, y: Any) -> Any:  # type: ignore[override]
        return functional.cross_entropy(self.model(x, mask), y)


class ExponentOverflow(Program):
    """A variance as the exponential of an output that nothing bounds."""

    cause: ClassVar = "numerical_overflow"
    producer: ClassVar = {"phase": "forward", "op": "aten.exp", "mark": "exp", "kind": "overflow"}

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        mean, spread = self.model(x).chunk(2, 1)
        spread = 2000 * spread if bad else spread
        likely = torch.exp(-spread) * (mean - x[:, :2]).square() + spread  # at: exp
        return likely.mean()


class Recurrent(nn.Module):
    """A recurrent network without a squashing function."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.turn, self.leave = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        nn.init.orthogonal_(self.turn.weight)

    def forward(self, x: Any) -> Any:
        h = torch.zeros(len(x), 16)
        for at in range(x.shape[1]):
            h = torch.relu(self.turn(h) + self.enter(x[:, at]))
        return self.leave(h)


class ExplodingRecurrent(Program):
    """Recurrent weights grow beyond one and sequences are long: gradients explode."""

    within: ClassVar = 20
    modes: ClassVar = ("exploding_gradients", "divergent_training", "loss_spike")

    def build(self) -> nn.Module:
        return Recurrent()

    def batch(self, step: int, bad: bool) -> tuple[Any, ...]:
        x = 0.3 * self.normal(32, 30, 4)
        return x, x.mean((1, 2))[:, None]

    def loss(self, bad: bool, x: Any, y: Any) -> Any:
        return (self.model(x) - y).square().mean()

    def disturb(self, step: int) -> None:
        if step == self.onset:
            with torch.no_grad():
                self.model.turn.weight *= 2.0


class LearningRate(Program):
    """A schedule with a wrong exponent: the learning rate jumps three-hundredfold."""

    cause: ClassVar = "learning_rate_schedule_fault"
    within: ClassVar = 20
    modes: ClassVar = (
        "learning_rate_instability", "divergent_training", "loss_spike", "exploding_gradients",
    )  # fmt: skip

    def disturb(self, step: int) -> None:
        self.optimizer.param_groups[0]["lr"] = 300 * self.lr


class FrozenLayer(Program):
    """A layer's weight is replaced; the optimizer goes on with the old one."""

    cause: ClassVar = "parameters_not_updated"
    within: ClassVar = 20
    modes: ClassVar = ("frozen_parameters",)

    def disturb(self, step: int) -> None:
        if step == self.onset:
            self.model[2].weight = nn.Parameter(self.model[2].weight.detach().clone())


class DeadUnits(Program):
    """Biases are driven so far down that a layer answers nothing."""

    within: ClassVar = 20
    modes: ClassVar = ("dead_units", "vanishing_gradients")

    def disturb(self, step: int) -> None:
        if step == self.onset:
            with torch.no_grad():
                self.model[2].bias -= 100.0


class NotZeroed(Program):
    """From a step on gradients are added up and never cleared."""

    cause: ClassVar = "gradients_not_zeroed"
    within: ClassVar = 20
    modes: ClassVar = (
        "stale_gradients", "exploding_gradients", "learning_rate_instability",
        "divergent_training", "loss_spike",
    )  # fmt: skip

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9)  # type: ignore[assignment]

    def clear(self, step: int, bad: bool) -> None:
        if not bad:
            self.optimizer.zero_grad()


PROGRAMS: tuple[type[Program], ...] = (
    LogOfZero, ZeroNorm, HalfOverflow, BfloatRounding, BadBatch, BackwardOnly, OptimizerState,
    EmbeddingRow, MaskedRow, ExponentOverflow, ExplodingRecurrent, LearningRate, FrozenLayer,
    DeadUnits, NotZeroed,
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the monitor said of one run."""

    found: tuple[tuple[int, Finding], ...]
    traced: tuple[TraceResult, ...]
    causes: tuple[AttributionHypothesis, ...]

    def first(self, modes: tuple[str, ...], onset: int) -> int | None:
        """Return the step at which one of `modes` was told, from its beginning on."""
        return min((s for s, f in self.found if str(f.failure_mode) in modes and s >= onset),
                   default=None)  # fmt: skip

    def alarms(self) -> list[tuple[int, Finding]]:
        """Return what is high or worse."""
        return [(step, one) for step, one in self.found if one.severity >= Severity.HIGH]


def run(kind: type[Program], seed: int, faulty: bool, **options: Any) -> Seen:
    """Train, watched as a user would; return what was found when."""
    program = kind(seed)
    settings = {"action": "none", "trace": True, **kind.options, **options}
    monitor = Monitor(program.model, program.optimizer, **settings)
    found: list[tuple[int, Finding]] = []
    # After what is told at once there is nothing more to see in a run that is lost.
    steps = program.onset + 3 if faulty and kind.producer else program.steps
    for step in range(steps):
        bad = faulty and step >= program.onset
        batch = program.batch(step, faulty)
        if bad:
            program.disturb(step)

        def closure(batch: Any = batch, bad: bool = bad) -> Any:
            x, *rest = batch
            return program.loss(bad, x, *rest)

        program.clear(step, bad)
        loss = closure()
        loss.backward()
        program.finish(bad)
        found += [(step, one) for one in monitor.step(loss=loss, closure=closure)]
    found += [(steps, one) for one in monitor.close()]
    tracer = monitor._tracer
    return Seen(tuple(found), tuple(tracer.results if tracer is not None else ()),
                tuple(monitor.report().attributions))  # fmt: skip


def named_rightly(kind: type[Program], result: TraceResult) -> list[str]:
    """Return in which fields the producer differs from what it has to be."""
    one = result.producer
    if one is None:
        return ["nothing was found"]
    wrong = []
    for field, value in kind.producer.items():
        if field == "mark":
            field, value = "source", line_of(value)
        if field == "dtype":
            had: Any = one.output.dtype if one.output is not None else None
        else:
            had = getattr(one, field)
        if had != value:
            wrong.append(f"{field} is {had}, not {value}")
    return wrong


def _row(kind: type[Program], seeds: int, **options: Any) -> str:
    delays, right, alarms, words, causes = [], 0, 0, "", 0
    for seed in range(seeds):
        sick, well = run(kind, seed, True, **options), run(kind, seed, False, **options)
        when = sick.first(kind.modes, kind.onset)
        delays.append(None if when is None else when - kind.onset)
        alarms += bool(well.alarms())
        causes += bool(sick.causes) and str(sick.causes[0].cause) == kind.cause
        if kind.producer and sick.traced:
            wrong = named_rightly(kind, sick.traced[0])
            right += not wrong
            words = "; ".join(wrong) or words
    told = [d for d in delays if d is not None and d <= kind.within]
    worst = "never" if None in delays else str(max(d for d in delays if d is not None))
    named = f"{right} of {seeds}" if kind.producer else "-"
    cause = f"{causes} of {seeds}" if kind.cause else "-"
    doc = (kind.__doc__ or "").split(":")[0].strip(". ").lower()
    return (
        f"| {doc} | {len(told)} of {seeds} within {kind.within} (worst {worst}) | {named} "
        f"| {cause} | {alarms} of {seeds} |" + (f" {words}" if words else "")
    )


def _onsets() -> None:
    """Print how long each lasting fault takes where it begins elsewhere in a block of steps."""
    print("| fault | steps until told, onsets 48, 51, ... 78, each its own seed |\n|---|---|")
    for kind in PROGRAMS:
        if kind.producer:
            continue
        delays = []
        for onset in range(48, 80, 3):
            moved = type(kind.__name__, (kind,), {"onset": onset, "steps": onset + 60})
            when = run(moved, onset, True).first(kind.modes, onset)
            delays.append("never" if when is None else str(when - onset))
        print(f"| {kind.__name__} | {', '.join(delays)} |")
    long = [type(kind.__name__, (kind,), {"steps": 600}) for kind in PROGRAMS]
    alarmed = sum(bool(run(kind, seed, False).alarms()) for kind in long for seed in (11, 12))
    print(f"\nHealthy runs of 600 steps with a high alarm: {alarmed} of {2 * len(long)}.")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--onsets", action="store_true")
    parser.add_argument("--every", type=int, help="as the monitor's, whose default is the default")
    parser.add_argument("--update-every", type=int, default=10)
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    if given.onsets:
        _onsets()
        return
    print(
        "| fault | found, in steps | producer named | cause named | healthy twin: alarms at high |"
    )
    print("|---|---|---|---|---|")
    more = {} if given.every is None else {"every": given.every}
    for kind in PROGRAMS:
        print(_row(kind, given.seeds, **more, update_every=given.update_every))


if __name__ == "__main__":
    main()
