"""Reading run data: every source beside its peers and beside plain Python.

python benchmarks/bench_ingestion.py [--n 1000000] [--rounds 3] [--only csv ...]

CPU seconds (of this process, all threads) and wall seconds, the best of the
rounds; peers that are not installed are left out with a note. Files are made
in a temporary folder and read from the page cache.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import struct
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ml_systems_debugger.ingestion import open_source
from ml_systems_debugger.kernels.formats import crc32c

Case = tuple[str, Callable[[Path], Any]]


def numbers(n: int) -> list[list[float]]:
    values: list[list[float]] = np.random.default_rng(0).random((n, 5)).tolist()
    return values


def write_csv(path: Path, n: int) -> None:
    with path.open("w") as file:
        file.write("step,loss,grad_norm,lr,accuracy,val_loss\n")
        file.writelines(
            f"{i},{a:.7g},{b:.7g},{c:.7g},{d:.7g},{e:.7g}\n"
            for i, (a, b, c, d, e) in enumerate(numbers(n))
        )


def write_jsonl(path: Path, n: int) -> None:
    with path.open("w") as file:
        file.writelines(
            f'{{"step": {i}, "loss": {a!r}, "grad_norm": {b!r}}}\n'
            for i, (a, b, *_) in enumerate(numbers(n))
        )


def write_megatron(path: Path, n: int) -> None:
    with path.open("w") as file:
        file.writelines(
            f" iteration {i:8d}/ {n} | consumed samples: {i * 1024:12d} | elapsed time per "
            f"iteration (ms): {a * 1e4:.1f} | learning rate: {b:.3E} | global batch size:  1024 | "
            f"lm loss: {c:.6E} | loss scale: 2048.0 | grad norm: {d:.3f} | number of skipped "
            "iterations:   0 | number of nan iterations:   0 |\n"
            for i, (a, b, c, d, _) in enumerate(numbers(n))
        )


def write_events(path: Path, n: int) -> None:
    def masked(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    def record(data: bytes) -> bytes:
        head = struct.pack("<Q", len(data))
        return head + masked(head) + data + masked(data)

    tags = (b"train/loss", b"lr", b"train/accuracy", b"train/grad_norm")
    with path.open("wb") as file:
        file.write(record(b"\x09" + struct.pack("<d", 1.7e9) + b"\x1a\x0dbrain.Event:2"))
        for i in range(n):
            tag = tags[i % 4]
            value = b"\x0a" + varint(len(tag)) + tag + b"\x15" + struct.pack("<f", i * 0.5)
            summary = b"\x0a" + varint(len(value)) + value
            file.write(
                record(
                    b"\x09" + struct.pack("<d", 1.7e9 + i) + b"\x10" + varint(i // 4)
                    + b"\x2a" + varint(len(summary)) + summary
                )
            )  # fmt: skip


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def write_wandb(path: Path, n: int) -> None:
    """Write a tenth of `n` rows of five keys."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    keys = ("_step", "_timestamp", "train/loss", "lr", "grad_norm")
    for i, row in enumerate(numbers(n // 10)):
        cells = (i, 1.7e9 + i, *row[:3])
        items = b"".join(
            field(1, field(2, key.encode()) + field(16, repr(cell).encode()))
            for key, cell in zip(keys, cells, strict=True)
        )
        left, first = field(2, items), True
        while first or left:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            part, left = left[: room - 7], left[room - 7 :]
            kind = (1 if not left else 2) if first else (4 if not left else 3)
            head = struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind)
            out += head + part
            first = False
    path.write_bytes(out)


def plain_csv(path: Path) -> Any:
    with path.open(newline="") as file:
        rows = csv.reader(file)
        columns: list[list[float]] = [[] for _ in next(rows)]
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                if cell:
                    column.append(float(cell))
    return columns


def plain_jsonl(path: Path) -> Any:
    columns: dict[str, list[float]] = {}
    with path.open() as file:
        for line in file:
            for name, value in json.loads(line).items():
                columns.setdefault(name, []).append(value)
    return columns


def plain_megatron(path: Path) -> Any:
    columns: dict[str, list[float]] = {}
    with path.open() as file:
        for line in file:
            for part in line.split("|")[1:]:
                name, _, value = part.partition(":")
                if value:
                    columns.setdefault(name.strip(), []).append(float(value))
    return columns


def numpy_csv(path: Path) -> Any:
    return np.loadtxt(path, delimiter=",", skiprows=1)


def pandas_csv(path: Path) -> Any:
    import pandas

    return pandas.read_csv(path)


def polars_csv(path: Path) -> Any:
    import polars

    return polars.read_csv(path)


def event_accumulator(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(path), size_guidance={"scalars": 0})
    found.Reload()
    return found


def tbparse_reader(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tbparse import SummaryReader

        return SummaryReader(str(path)).scalars


def whole_json(path: Path) -> Any:
    with path.open() as file:
        events = json.load(file)["traceEvents"]
    return {e["name"]: e["dur"] for e in events if e["name"].startswith("ProfilerStep")}


def write_trace(path: Path, n: int) -> None:
    """Write a quarter of `n` events as the profiler does, one step in a thousand."""
    n //= 4
    event = (
        '  {{\n    "ph": "X", "cat": "{}", "name": "{}", "pid": 1, "tid": 1,\n'
        '    "ts": {}.125, "dur": {}.250,\n    "args": {{\n      "External id": {}, '
        '"Record function id": 0, "Ev Idx": {}\n    }}\n  }}'
    )
    with path.open("w") as file:
        file.write('{\n"schemaVersion": 1,\n"traceEvents": [\n')
        for i in range(n):
            kind = ("cpu_op", "aten::add")
            if i % 1000 == 0:
                kind = ("user_annotation", f"ProfilerStep#{i // 1000}")
            elif i % 50 == 0:
                kind = ("kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)")
            file.write(event.format(*kind, i, 990 if i % 1000 == 0 else 3, i, i))
            file.write(",\n" if i < n - 1 else "\n")
        file.write('], "traceName": "x" }\n')


SOURCES: dict[str, tuple[Callable[[Path, int], None], list[Case]]] = {
    "csv": (
        write_csv,
        [("csv module, loops", plain_csv), ("numpy.loadtxt", numpy_csv),
         ("pandas", pandas_csv), ("polars", polars_csv)],
    ),
    "jsonl": (write_jsonl, [("json, loops", plain_jsonl)]),
    "megatron": (write_megatron, [("split, loops", plain_megatron)]),
    "tfevents": (
        write_events,
        [("EventAccumulator", event_accumulator), ("tbparse", tbparse_reader)],
    ),
    "trace": (write_trace, [("json.load", whole_json)]),
    "wandb": (write_wandb, []),
}  # fmt: skip


def measured(work: Callable[[Path], Any], path: Path, rounds: int) -> tuple[float, float] | str:
    best = (float("inf"), float("inf"))
    for _ in range(rounds):
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            result = work(path)
        except ImportError as error:
            return f"not measured: {error}"
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
        del result
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="rows, lines or scalars")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(SOURCES), default=list(SOURCES))
    options = parser.parse_args()
    n = options.n
    print("| source | reader | CPU s | wall s |\n|---|---|---|---|")
    data = {"loss": np.random.default_rng(0).random(n), "grad_norm": np.ones(n)}
    cpu, wall = measured(lambda _: open_source(data), Path(), options.rounds)
    print(f"| {n:,} steps of two arrays | here | {cpu:.4f} | {wall:.4f} |")
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.only:
            write, peers = SOURCES[kind]
            path = Path(folder, f"run.{kind}")
            write(path, n)
            rows = n // {"wandb": 10, "trace": 4}.get(kind, 1)
            label = f"{kind}, {rows:,} rows, {path.stat().st_size / 1e6:.0f} MB"
            for who, work in [("here", open_source), *peers]:
                # A peer of half a minute is not run three times.
                rounds = options.rounds if who == "here" else 1
                found = measured(work, path, rounds)
                if isinstance(found, str):
                    print(f"| {label} | {who} | {found} | |")
                else:
                    print(f"| {label} | {who} | {found[0]:.3f} | {found[1]:.3f} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
