"""`mlsd scan` beside plain reading and beside torch, on generated checkpoints.

``python benchmarks/bench_checkpoints.py [--gigabytes 4] [--folder DIR] [--cold]``
writes the files, measures in interleaved rounds, prints medians and ratios, and
removes the files. Cold rounds ask the kernel to drop the file's pages first;
GB/s are of file bytes. Peak memory is that of a process of its own that only
scans; ``--memory`` measures nothing else: one file, and as many bytes in
``--shards`` files with an index.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CHUNK = 1 << 20
TENSORS_PER_GIGABYTE = 16


def write_safetensors(path: Path, gigabytes: float, prefix: str = "") -> None:
    """Write random float32 matrices, a few MB at a time."""
    count = max(1, round(gigabytes * TENSORS_PER_GIGABYTE))
    shape = (4096, 4096 * 16 // TENSORS_PER_GIGABYTE)
    size = shape[0] * shape[1] * 4
    header = {
        f"{prefix}layers.{i}.weight": {"dtype": "F32", "shape": shape,
                               "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    values = np.random.default_rng(0).normal(size=CHUNK).astype("f4")
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for part in range(count * size // (4 * CHUNK)):
            values[part % CHUNK] += 1.0  # no two parts are equal
            out.write(values.tobytes())


def write_torch(path: Path, source: Path) -> None:
    """Write the same tensors with torch."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(source), path)


def drop(path: Path) -> None:
    """Ask for the file's pages to be dropped from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def plain_read(path: Path, threads: int = 2) -> None:
    """Read a file with `pread` into one small buffer per thread, and look at nothing."""
    size = path.stat().st_size
    descriptor = os.open(path, os.O_RDONLY)
    places = iter(range(0, size, CHUNK))
    lock = threading.Lock()

    def work() -> None:
        buffer = bytearray(CHUNK)
        while True:
            with lock:
                at = next(places, None)
            if at is None:
                return
            os.preadv(descriptor, [buffer], at)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    os.close(descriptor)


def torch_isfinite(path: Path) -> None:
    """What people do today: every tensor through safe_open and torch.isfinite."""
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            assert bool(torch.isfinite(file.get_tensor(name)).all())


def scan(path: Path, access: str = "pread") -> None:
    """Scan with every statistic and the digest."""
    from ml_systems_debugger.checkpoints import Options
    from ml_systems_debugger.checkpoints import scan as scan_checkpoint

    report = scan_checkpoint(path, options=Options(access=access))
    assert report.status.value == "sound", report


def write_shards(folder: Path, gigabytes: float, count: int) -> None:
    """Write a folder of shards and the index that lists them."""
    weight_map = {}
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        write_safetensors(folder / name, gigabytes / count, f"part.{number}.")
        with (folder / name).open("rb") as source:
            length = int.from_bytes(source.read(8), "little")
            weight_map.update(dict.fromkeys(json.loads(source.read(length)), name))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def peak_memory(path: Path) -> float:
    """Return the peak resident MB of a process that scans, with the interpreter and NumPy."""
    # VmHWM begins anew with the program; ru_maxrss would still hold this process's own peak.
    code = (
        "import pathlib, re, sys\n"
        "from ml_systems_debugger.checkpoints import scan\n"
        "scan(sys.argv[1])\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def measured(
    cases: dict[str, tuple[Callable[[Path], None], Path]], rounds: int, cold: bool
) -> dict[str, float]:
    """Return the median GB/s of each case over interleaved rounds.

    Hot rounds fill the page cache anew, in an order that changes, as does that of the cases: how
    fast a file can be read hangs on the pieces of memory that it found.
    """
    order = random.Random(0)
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    paths = sorted({path for _, path in cases.values()})
    for _ in range(rounds):
        order.shuffle(paths)
        for path in () if cold else paths:
            drop(path)
        for path in () if cold else paths:
            plain_read(path)
        for name, (run, path) in order.sample(list(cases.items()), len(cases)):
            if cold:
                drop(path)
            began = time.perf_counter()
            run(path)
            speeds[name].append(path.stat().st_size / (time.perf_counter() - began) / 1e9)
    return {name: statistics.median(found) for name, found in speeds.items()}


PLAIN = "pread, 2 threads, nothing looked at"
PLAIN_TORCH = "the same of the .pt"


def show(kind: str, speeds: dict[str, float]) -> None:
    """Print medians, and how they stand to plain reading of the same file and to torch.

    Two files that are in the page cache are not read equally fast: it holds them in pieces of
    other sizes. What a format costs is seen beside plain reading of its own file.
    """
    torch = speeds.get("safe_open + torch.isfinite")
    for case, speed in speeds.items():
        plain = speeds[PLAIN_TORCH if case in (PLAIN_TORCH, "scan torch") else PLAIN]
        beside = "" if torch is None else f", {speed / torch:5.1f} x torch"
        print(f"{kind:4}  {case:40} {speed:6.2f} GB/s, {speed / plain:5.2f} x pread{beside}")
    raw = speeds["scan torch"] / speeds["scan safetensors"]
    fair = raw * speeds[PLAIN] / speeds[PLAIN_TORCH]
    print(f"{kind:4}  .pt beside safetensors: {raw:.2f}, each beside its own pread: {fair:.2f}")


def main() -> None:
    """Write, measure, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--memory", action="store_true", help="peak memory alone")
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--torch", action="store_true", help="the .pt beside safetensors alone")
    parser.add_argument("--cold", action="store_true", help="measure cold reads too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path, other = Path(name) / "m.safetensors", Path(name) / "m.pt"
        if arguments.memory:
            write_safetensors(path, arguments.gigabytes)
            print(f"one file of {arguments.gigabytes:g} GB: peak {peak_memory(path):.0f} MB")
            path.unlink()
            (folder := Path(name) / "shards").mkdir()
            write_shards(folder, arguments.gigabytes, arguments.shards)
            print(f"{arguments.shards} shards of as much: peak {peak_memory(folder):.0f} MB")
            return
        write_safetensors(path, arguments.gigabytes)
        write_torch(other, path)
        cases = {
            PLAIN: (plain_read, path),
            PLAIN_TORCH: (plain_read, other),
            "scan safetensors": (scan, path),
            "scan torch": (scan, other),
            "scan safetensors --direct": (lambda p: scan(p, "direct"), path),
            "scan safetensors --mmap": (lambda p: scan(p, "mmap"), path),
        }
        if arguments.torch:
            cases = {name: cases[name] for name in list(cases)[:4]}
            show("hot", measured(cases, arguments.rounds, False))
            return
        slow = {"safe_open + torch.isfinite": (torch_isfinite, path)}
        print(f"{path.stat().st_size / 1e9:.2f} GB of float32, {os.cpu_count()} cores, "
              f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
        if arguments.cold:
            show("cold", measured(cases, arguments.rounds, True))
        show("hot", measured({**cases, **slow}, arguments.rounds, False))
        print(f"peak memory of a scan: {peak_memory(path):.0f} MB")


if __name__ == "__main__":
    main()
