"""What watching costs on a GPU: the pass over all gradients, its share of a step, what waits.

    python benchmarks/bench_device.py                     # 1.5 B parameters in bfloat16
    python benchmarks/bench_device.py --width 256 --layers 4 --on-cpu   # the logic, no figures

Gradients of a decoder of `--layers` blocks of `--width` (the defaults make 1.5 B parameters), in
bfloat16. `pass`: all norms, by Triton and by torch, as the median of rounds that take turns with
a plain read of the same bytes (they lie in one buffer; its sum as int32, one kernel of torch's
own); the aim is 1.15 of that read. `step`: training steps with the monitor and without in turn, the
median of the differences over the median without; the aim is 1 %. `waits`: synchronising calls
within the monitor's own part of a step, counted by torch.profiler; the aim is none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from ml_systems_debugger import Monitor
from ml_systems_debugger.monitoring._device_stats import norms_of
from ml_systems_debugger.monitoring._devices import Devices

WAITS = ("Synchronize", "aten::item", "aten::_local_scalar_dense", "aten::is_nonzero")
"""Parts of the names of what makes the host wait."""


class Block(torch.nn.Module):
    """A block of a decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.heads = max(width // 64, 1)

    def forward(self, x: Any) -> Any:
        """Return x [batch, length, width] after attention and a network of two layers."""
        batch, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norms[1](x))))


def decoder(width: int, layers: int, words: int) -> Any:
    """Return a decoder with its embedding and head apart, in bfloat16."""
    model = torch.nn.Sequential(
        torch.nn.Embedding(words, width), *(Block(width) for _ in range(layers)),
        torch.nn.LayerNorm(width), torch.nn.Linear(width, words, bias=False),
    )  # fmt: skip
    return model.to(torch.bfloat16)


class Clock:
    """Times work: by events on a GPU, by the host's clock elsewhere."""

    def __init__(self, device: Any) -> None:
        self._gpu = device.type == "cuda"

    def __call__(self, work: Callable[[], object]) -> float:
        """Return the seconds of one call, the work on the device included."""
        if not self._gpu:
            began = time.perf_counter()
            work()
            return time.perf_counter() - began
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        work()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3


def in_turn(clock: Clock, ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Return the seconds of each way in every round; the first two rounds do not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for at in range(rounds + 2):
        for name, work in ways.items():
            seconds = clock(work)
            if at >= 2:
                taken[name].append(seconds)
    return taken


def the_pass(clock: Clock, device: Any, sizes: list[int], rounds: int) -> None:
    """Print the time of the pass over gradients of these sizes beside that of a plain read."""
    whole = torch.randn(sum(sizes) // 2 * 2, dtype=torch.bfloat16, device=device)
    gradients = list(whole.split([*sizes[:-1], len(whole) - sum(sizes[:-1])]))
    bits = whole.view(torch.int32)
    ways: dict[str, Callable[[], object]] = {
        "a plain read": bits.sum,
        "all norms, torch": lambda: norms_of(gradients),
    }
    fused = Devices().fused(device)
    if fused is None:
        print("no kernel here: Triton is not installed, or this is no GPU of its kind")
    else:
        ways["all norms, Triton"] = lambda: fused(gradients)
    taken = in_turn(clock, ways, rounds)
    read = statistics.median(taken["a plain read"])
    size = sum(one.numel() * one.element_size() for one in gradients)
    print(f"{size / 1e9:.2f} GB in {len(gradients)} tensors")
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(
            a / b for a, b in zip(seconds, taken["a plain read"], strict=True)
        )
        print(f"{name:20} {1e3 * middle:9.3f} ms {size / middle / 1e9:8.1f} GB/s  x{ratio:.2f}")
    print(f"aim: 1.15 of the read, {1.15e3 * read:.3f} ms")


def steps(clock: Clock, device: Any, model: Any, words: int, length: int, rounds: int) -> None:
    """Print the share of a training step that the monitor takes, and what it waits for."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    tokens = torch.randint(words, (1, length + 1), device=device)

    def train() -> Any:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[0, 1:])
        loss.backward()
        return loss

    def bare() -> None:
        train()
        optimizer.step()

    monitor = Monitor(model, None, action="none")
    held = monitor._model
    if held is None:
        raise RuntimeError("the monitor took no model")
    if device.type == "cpu":
        _as_device(monitor)

    def watch(loss: Any) -> None:
        held.measure()
        monitor.step(loss=loss)

    def watched() -> None:
        loss = train()
        held.measure()
        optimizer.step()
        monitor.step(loss=loss)

    taken = in_turn(clock, {"without": bare, "with": watched}, rounds)
    alone = statistics.median(taken["without"])
    more = statistics.median(b - a for a, b in zip(*taken.values(), strict=True))
    print(f"a step of {length} tokens {1e3 * alone:.2f} ms; watching {more / alone:+.2%}; aim: 1 %")
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    losses = [train() for _ in range(4)]
    with torch.profiler.profile(activities=kinds) as profile:
        for loss in losses:
            watch(loss)
    counts = {
        one.key: one.count for one in profile.key_averages() if any(w in one.key for w in WAITS)
    }
    if device.type == "cuda":  # the profiler's own, where it ends
        counts.pop("cudaDeviceSynchronize", None)
    late = monitor._intake.late
    waited = "no step was measured on a device" if late is None else f"{late.waited} steps waited"
    print(f"waits in 4 steps: {counts or 'none'}; {waited} for; aim: none")
    print(f"checks of the monitor that failed: {monitor._notes or 'none'}")
    monitor.close()


def _as_device(monitor: Any) -> None:
    """Let the CPU's tensors be taken as a device's; what is copied is there at once."""

    class Here:
        def __init__(self, flat: Any) -> None:
            self._flat = flat

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            raise AssertionError("nothing is waited for")

        def values(self) -> Any:
            return self._flat.numpy().copy()

    class Cpu(Devices):
        def holds(self, value: Any) -> bool:
            return isinstance(value, torch.Tensor)

        def copy(self, device: Any, flat: Any) -> Any:
            return Here(flat)

    monitor._intake.devices = Cpu()
    monitor._model.use_devices()


def main() -> int:
    """Measure as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--layers", type=int, default=44)
    parser.add_argument("--words", type=int, default=50_304)
    parser.add_argument("--length", type=int, default=2048, help="tokens of a step")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--on-cpu", action="store_true", help="run the logic without a GPU")
    given = parser.parse_args()
    if not given.on_cpu and not torch.cuda.is_available():
        print("no GPU was found: nothing was measured (--on-cpu runs the logic with small sizes)")
        return 2
    device = torch.device("cpu" if given.on_cpu else "cuda")
    if given.on_cpu:
        print("on the CPU, in the part of a device: these figures say nothing about a GPU")
    else:
        print(torch.cuda.get_device_name(), "torch", torch.__version__)
    torch.manual_seed(0)
    model = decoder(given.width, given.layers, given.words).to(device)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.3f} B parameters")
    clock = Clock(device)
    the_pass(clock, device, [p.numel() for p in model.parameters()], given.rounds)
    steps(clock, device, model, given.words, given.length, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
