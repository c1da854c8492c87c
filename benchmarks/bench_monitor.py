"""The live monitor: what a step costs, beside training and beside other ways to watch.

    python benchmarks/bench_monitor.py fixed        # a step over 148 small tensors
    python benchmarks/bench_monitor.py transformer [--pairs]  # 10 M parameters, 2,048 tokens
    python benchmarks/bench_monitor.py memory       # the same model, bytes

`fixed`: the step hook and `monitor.step`, with all that the detectors take in their
blocks, as the median over 10 windows of 256 steps; beside it the pass over the same
bytes alone (one call on plain arrays); and by how much a loop with the optimizer's own
step is slower, in windows in turn: a gradient's Python object is made once for both.
`transformer`:
steps of real training in random order of the ways to watch, each the median of what it
took beyond the steps without any in the same round, with the median's 95 % interval by
bootstrap over rounds. `--threads` are torch's and ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ml_systems_debugger import Monitor
from ml_systems_debugger.kernels import set_num_threads
from ml_systems_debugger.kernels.live import live_norms

TENSORS, VALUES, WARM = 148, 64, 1024
WINDOW = 256  # steps: every detector looks once, those of what comes sooner twice
STEPS = 10 * WINDOW
TOKENS, WIDTH, LAYERS, WORDS, LENGTH = 2048, 320, 7, 3200, 256


def microseconds(call: Callable[[], object], rounds: int = 400) -> float:
    """Return the median of a call."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def small_steps(
    anew: bool, **more: Any
) -> tuple[Monitor, list[float], list[float], tuple[Any, ...]]:
    """Watch steps over many small tensors; return the seconds of hooks and of steps.

    Parameters
    ----------
    anew : bool
        Whether gradients are other tensors at every step, as after `zero_grad`: their
        Python objects and their places in the caches are then new as well.
    more
        Options of the monitor.
    """
    parameters = torch.nn.ParameterList(
        torch.nn.Parameter(torch.randn(VALUES)) for _ in range(TENSORS)
    )
    optimizer = torch.optim.SGD(parameters.parameters(), 1e-2)
    monitor = Monitor(parameters, optimizer, action="none", **more)
    rng = np.random.default_rng(0)
    data = [parameter.data for parameter in parameters]
    noise = [torch.randn(VALUES) for _ in range(TENSORS)]
    for parameter, one in zip(parameters, noise, strict=True):
        parameter.grad = one.clone()
    hook = monitor._model.measure
    hooks, steps = [], []
    for step in range(STEPS + WARM):
        factor = float(np.exp(rng.normal(0, 0.1)))
        if anew:
            for parameter, one in zip(parameters, torch._foreach_mul(noise, factor), strict=True):
                parameter.grad = one
        else:
            gradients = [parameter.grad for parameter in parameters]
            torch._foreach_copy_(gradients, noise)
            torch._foreach_mul_(gradients, factor)
        torch._foreach_add_(data, noise, alpha=-1e-4)
        value = 2 * np.exp(-step / 400) + 0.5 + 0.02 * rng.normal()
        loss = torch.tensor(value, requires_grad=True) * 1.0
        began = time.perf_counter()
        hook()
        middle = time.perf_counter()
        monitor.step(loss=loss)
        hooks.append(middle - began)
        steps.append(time.perf_counter() - middle)
    assert not monitor.findings, monitor.findings
    return monitor, hooks[WARM:], steps[WARM:], tuple(p.grad for p in parameters)


def slower_loop() -> float:
    """Return by how many microseconds a step of a loop with SGD is slower for being watched."""
    parameters = torch.nn.ParameterList(
        torch.nn.Parameter(torch.randn(VALUES)) for _ in range(TENSORS)
    )
    optimizer = torch.optim.SGD(parameters.parameters(), 1e-4)
    monitor = Monitor(parameters, optimizer, action="none")
    before, after = (
        dict(hooks) for hooks in (optimizer._optimizer_step_pre_hooks,
                                  optimizer._optimizer_step_post_hooks)
    )  # fmt: skip
    noise = [torch.randn(VALUES) for _ in range(TENSORS)]
    rng, step = np.random.default_rng(0), 0
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(26):
        for watched in (True, False):
            if watched:
                optimizer._optimizer_step_pre_hooks.update(before)
                optimizer._optimizer_step_post_hooks.update(after)
            else:
                optimizer._optimizer_step_pre_hooks.clear()
                optimizer._optimizer_step_post_hooks.clear()
            total = 0.0
            for _ in range(WINDOW):
                factor = float(np.exp(rng.normal(0, 0.1)))
                made = torch._foreach_mul(noise, factor)
                for parameter, one in zip(parameters, made, strict=True):
                    parameter.grad = one
                del made, one
                value = 2 * np.exp(-step / 4000) + 0.5 + 0.02 * rng.normal()
                loss = torch.tensor(value, requires_grad=True) * 1.0
                step += watched
                began = time.perf_counter()
                optimizer.step()
                if watched:
                    monitor.step(loss=loss)
                total += time.perf_counter() - began
            taken[watched].append(total / WINDOW)
    pairs = np.array(taken[True][4:]) - np.array(taken[False][4:])
    assert not monitor.findings, monitor.findings
    return 1e6 * float(np.median(pairs))


def fixed() -> None:
    """Print what a step over many small tensors costs."""
    columns = []
    folder = tempfile.TemporaryDirectory()
    ring = {"recorder": f"{folder.name}/run.ring"}
    for anew, more in ((False, {}), (True, {}), (True, ring), (True, {"overhead": 0.01})):
        monitor, hooks, steps, gradients = small_steps(anew, **more)
        arrays = tuple(gradient.numpy() for gradient in gradients)
        norms, there = np.zeros(TENSORS), np.zeros(TENSORS, np.bool_)
        data = microseconds(lambda: live_norms(arrays, norms, there))  # noqa: B023 - called here
        hook, step = (1e6 * statistics.median(taken) for taken in (hooks, steps))
        windows = 1e6 * (np.array(hooks) + np.array(steps)).reshape(-1, WINDOW).mean(axis=1)
        total = float(np.median(windows))
        columns.append([hook, step, total - hook - step, total, data, total - data])
    rows = (
        "hook: gradients taken and measured, median",
        "`monitor.step`, median",
        "detectors, and movements every 10 steps",
        "all",
        "the pass alone, over plain arrays",
        "all, beyond that pass",
    )
    print(f"| {TENSORS} tensors of {VALUES} values, us a step | gradients in place | made anew "
          "| and a recorder | overhead=0.01 |\n|---|---|---|---|---|")  # fmt: skip
    for title, *told in zip(rows, *columns, strict=True):
        print(f"| {title} | {' | '.join(f'{one:.1f}' for one in told)} |")
    slower = statistics.median(slower_loop() for _ in range(3))
    beyond = slower - columns[1][4]
    print(
        f"\nA loop with SGD's own step, gradients made anew, is slower by {slower:.1f} us a step,"
    )
    print(f"{beyond:.1f} beyond the pass.")
    print(f"With the budget: {monitor.budget}.")
    folder.cleanup()


class Transformer(torch.nn.Module):
    """A decoder of about 10 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.places = torch.nn.Embedding(LENGTH, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, 8, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.body(x, mask=mask, is_causal=True))


class Training:
    """Real steps: made-up text with structure, AdamW."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Transformer()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 3e-4)
        self.parameters = list(self.model.parameters())

    def step(self, after: Callable[[], None] = lambda: None) -> torch.Tensor:
        start = torch.randint(0, WORDS, (TOKENS // LENGTH, 1))
        text = (start + 7 * torch.arange(LENGTH + 1)) % WORDS
        self.optimizer.zero_grad()
        out = self.model(text[:, :-1])
        loss = torch.nn.functional.cross_entropy(out.reshape(-1, WORDS), text[:, 1:].reshape(-1))
        loss.backward()
        after()
        self.optimizer.step()
        return loss

    def naive(self) -> None:
        """Look through every gradient, as anyone would."""
        for parameter in self.parameters:
            if not torch.isfinite(parameter.grad).all():
                raise FloatingPointError

    def norms(self) -> None:
        """Log every gradient's norm, as anyone would."""
        for parameter in self.parameters:
            parameter.grad.norm().item()


def shown(ratios: np.ndarray[Any, Any]) -> str:
    """Return the median of ratios with its 95 % interval by bootstrap."""
    picked = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[picked], axis=1), (0.025, 0.975))
    return f"{np.median(ratios):+.2%} ({low:+.2%} to {high:+.2%})"


def transformer(seconds: float, pairs: bool) -> None:
    """Print how much slower training is; with `pairs` the monitor alone, more often."""
    training = Training()
    pre_hooks = training.optimizer._optimizer_step_pre_hooks
    everything = Monitor(
        training.model, training.optimizer, action="none", update_every=1, activations=True
    )
    full = dict(pre_hooks)
    hooks = {one: dict(one._forward_hooks) for one in training.model.modules()}
    pre_hooks.clear()
    for one in hooks:
        one._forward_hooks.clear()
    every = Monitor(training.model, training.optimizer, action="none", update_every=1)
    watched = dict(pre_hooks)

    def monitored() -> None:
        pre_hooks.update(watched)
        try:
            every.step(loss=training.step())
        finally:
            pre_hooks.clear()

    def with_activations() -> None:
        pre_hooks.update(full)
        for one, held in hooks.items():
            one._forward_hooks.update(held)
        try:
            everything.step(loss=training.step())
        finally:
            pre_hooks.clear()
            for one in hooks:
                one._forward_hooks.clear()

    def anomaly() -> None:
        with torch.autograd.detect_anomaly(check_nan=True):
            training.step()

    run = None if pairs else wandb_run()

    def watched_by_wandb() -> None:
        run.watch(training.model, log="gradients", log_freq=1)
        run.log({"loss": float(training.step().detach())})
        run.unwatch(training.model)

    ways: dict[str, Callable[[], object]] = {
        "none": training.step,
        "Monitor, all but activations at every step": monitored,
        "the same with activations": with_activations,
        "isfinite of every gradient in a loop": lambda: training.step(training.naive),
        "norm().item() of every gradient in a loop": lambda: training.step(training.norms),
        "torch.autograd.detect_anomaly": anomaly,
    }
    if run is not None:
        ways["wandb.watch, gradients, logged offline"] = watched_by_wandb
    if pairs:
        ways = dict(list(ways.items())[:3])
    pre_hooks.clear()
    warnings.filterwarnings("ignore", "Anomaly Detection")
    taken: dict[str, list[Any]] = {name: [] for name in ways}
    costs = []
    chance = random.Random(0)
    number, until = 0, time.perf_counter() + seconds
    while number < 5 or time.perf_counter() < until:
        number += 1
        order = list(ways) if pairs else [*ways, "none"]
        chance.shuffle(order)
        own: dict[str, list[Any]] = {}
        for name in order:
            before = every.cost
            began = np.array([time.perf_counter(), time.process_time()])
            ways[name]()
            ended = np.array([time.perf_counter(), time.process_time()])
            own.setdefault(name, []).append(ended - began)
            if name.startswith("Monitor") and number > 2:
                costs.append(every.cost - before)
        if number <= 2:
            continue
        for name, seconds in own.items():
            taken[name].append(np.mean(seconds, axis=0))
    size = sum(parameter.numel() for parameter in training.parameters)
    alone = float(np.median([wall for wall, _ in taken["none"]]))
    what = f"{size / 1e6:.1f} M parameters in {len(training.parameters)} tensors, {TOKENS} tokens"
    print(f"| {what}, {number - 2} rounds | ms a step | slower by | more of the processors |")
    print("|---|---|---|---|")
    for name, seconds in taken.items():
        ratios = np.array(seconds) / np.array(taken["none"]) - 1
        told = ["" if name == "none" else shown(column) for column in ratios.T]
        wall = float(np.median([wall for wall, _ in seconds]))
        print(f"| {name} | {1e3 * wall:.0f} | {told[0]} | {told[1]} |")
    mean = statistics.mean(costs)
    print(f"| what the monitor's own clock says | {1e3 * mean:.2f} | {mean / alone:.2%} | |")
    assert not every.findings, every.findings
    if run is not None:
        run.finish()


def wandb_run() -> Any:
    """Return a run of wandb that goes to a folder of its own and nowhere else; None without it."""
    if importlib.util.find_spec("wandb") is None:
        return None
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    return wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=settings)


def memory() -> None:
    """Print the bytes that a monitor of the transformer holds after 100 steps."""
    training = Training()
    for parameter in training.parameters:
        parameter.grad = torch.randn_like(parameter) * 1e-3
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    monitor = Monitor(training.model, training.optimizer, action="none", update_every=1)
    rng = np.random.default_rng(0)
    for _ in range(100):
        monitor._model.measure()
        for parameter in training.parameters:
            parameter.data.mul_(0.9999)
        monitor.step(loss=1 + 0.01 * rng.normal())
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print("| the monitor of the transformer | MB |\n|---|---|")
    print(f"| held after 100 steps | {(held - before) / 1e6:.1f} |")
    print(f"| at most | {(peak - before) / 1e6:.1f} |")


def main() -> None:
    """Print one table, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", default=["fixed", "transformer", "memory"])
    parser.add_argument("--seconds", type=float, default=70, help="for the transformer")
    parser.add_argument("--pairs", action="store_true", help="the transformer with ours alone")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves what is usual")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
        set_num_threads(options.threads)
    parts: dict[str, Callable[[], None]] = {
        "fixed": fixed, "memory": memory,
        "transformer": lambda: transformer(options.seconds, options.pairs),
    }  # fmt: skip
    for name in options.part:
        parts[name]()
        print()


if __name__ == "__main__":
    main()
