"""Mutated checkpoints of every format: the readers refuse or scan them, and do nothing else.

A campaign: ``python tests/fuzz/mutate_checkpoints.py --count 2000 --seed 0``. It
prints, per format, how many files were refused, incomplete, or scanned, the
slowest one, and the most memory that one took beyond twice its size; anything
but a refusal in so many words is a failure, and so is a verdict that the format's own
library contradicts (`oracles.py`); the file is kept.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from oracles import contradicted

from ml_systems_debugger.checkpoints import Options, scan
from ml_systems_debugger.core import MLSystemsDebuggerError

ALLOWANCE = 64 << 20
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1,
         (1 << 64) - 1)  # fmt: skip


def seeds() -> dict[str, bytes]:
    """One small file for each format, made by the libraries that define it."""
    import gguf
    import torch
    from safetensors.torch import save

    tensors = {"layers.0.w": torch.randn(6, 8), "layers.1.w": torch.randn(6, 8).bfloat16(),
               "ids": torch.arange(5)}  # fmt: skip
    out = {"safetensors": save(tensors, {"format": "pt"})}
    view = {"view": tensors["layers.0.w"].t()[1:4], "optimizer": {"state": {0: {"step": 3}}}}
    buffer = io.BytesIO()
    torch.save({**tensors, **view}, buffer)
    out["torch"] = buffer.getvalue()
    arrays = {"a": np.ones((3, 4), "f4"), "b": np.arange(6, dtype=">i8")}
    for name, save_arrays in (("npz", np.savez), ("npz_deflated", np.savez_compressed)):
        buffer = io.BytesIO()
        save_arrays(buffer, **arrays)
        out[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(np.ones((3, 4))))
    out["npy"] = buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(Path(folder) / "m.gguf", "llama")
        writer.add_array("tokens", ["a", "bc", "d"])
        writer.add_tensor("w", np.linspace(-1, 1, 128, dtype="f4").reshape(4, 32))
        blocks = gguf.quants.quantize(
            np.linspace(-1, 1, 256, dtype="f4").reshape(4, 64), gguf.GGMLQuantizationType.Q8_0
        )
        writer.add_tensor("q", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        out["gguf"] = (Path(folder) / "m.gguf").read_bytes()
    return out


def distributed_seed(folder: Path) -> None:
    """Write a small checkpoint of torch.distributed in one process."""
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    with tempfile.TemporaryDirectory() as store:
        dist.init_process_group("gloo", init_method=f"file://{store}/store", rank=0, world_size=1)
        dcp.save({"w": torch.randn(4, 6), "s": {"n": 3}}, checkpoint_id=folder)
        dist.destroy_process_group()


DEEPSPEED_FILES = (
    "mp_rank_00_model_states.pt",
    "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
)


def deepspeed_seed(folder: Path) -> None:
    """Write what two ranks of DeepSpeed's ZeRO 2 save, by torch.save as its engine does."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    shapes = [{"a.weight": torch.Size([7, 5]), "a.bias": torch.Size([7])}]
    model = {
        "module": {"a.weight": torch.randn(7, 5), "a.bias": torch.randn(7)},
        "param_shapes": shapes, "buffer_names": [], "shared_params": {}, "dp_world_size": 2,
    }  # fmt: skip
    torch.save(model, folder / DEEPSPEED_FILES[0])
    for file in DEEPSPEED_FILES[1:]:
        state = {
            "zero_stage": 2, "partition_count": [2], "param_alignment_paddings": [[1, 1]],
            "single_partition_of_fp32_groups": [torch.randn(22)],
        }  # fmt: skip
        torch.save({"optimizer_state_dict": state, "ds_version": "0.19.8"}, folder / file)


def pickle_of(data: bytes) -> bytes:
    """Return the pickle inside a torch archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        return archive.read(name)


def with_pickle(data: bytes, content: bytes) -> bytes:
    """Return a torch archive with another pickle, right in all else."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as target:
        for name in archive.namelist():
            target.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    return out.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to four changes."""
    out = bytearray(data)
    # Headers and directories are where parsers can be led astray: most changes go there.
    edges = 400
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        at = rng.randrange(len(out))
        if rng.random() < 0.7:
            at = min(rng.randrange(edges), len(out) - 1)
            at = at if rng.random() < 0.5 else len(out) - 1 - at
        kind = rng.randrange(8)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind in (2, 3):
            width = rng.choice((2, 4, 8))
            word = rng.choice(WORDS) & ((1 << 8 * width) - 1)
            out[at : at + width] = word.to_bytes(width, "little")
        elif kind == 4:
            del out[at : at + rng.randint(1, 64)]
        elif kind == 5:
            begin = rng.randrange(len(out))
            out[at:at] = out[begin : begin + rng.randint(1, 64)]
        elif kind == 6:
            out[at:at] = bytes(rng.choice(b'"{}[]:,.0(\x80]t)R') for _ in range(rng.randint(1, 9)))
        else:
            del out[at:]
    return bytes(out)


def attempt(path: Path) -> str:
    """Scan a file; return what became of it.

    Anything but our own errors is raised, and a DamageError where the format's own library
    refuses what is whole here, or sees other values.
    """
    try:
        report = scan(path, workers=1, options=Options(inflate=True))
    except MLSystemsDebuggerError:
        return "refused"
    str(report)
    report.to_json()
    contradicted(report, path)
    return report.status.value


def campaign(
    name: str, count: int, seed: int, place: Callable[[bytes], Path], data: bytes, memory: bool
) -> Counter[str]:
    """Scan `count` mutations of one seed and say how it went."""
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    slowest = most = 0.0
    attempt(place(data))  # what the oracles import is no part of a scan
    for number in range(count):
        content = mutated(data, rng)
        path = place(content)
        if memory:
            tracemalloc.reset_peak()
            held = tracemalloc.get_traced_memory()[0]
        began = time.process_time()  # a busy machine is no slow reader
        try:
            seen[attempt(path)] += 1
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"mutation-{name}-{seed}-{number}"
            kept.write_bytes(content)
            print(f"{name}: mutation {number} of seed {seed} fails, kept as {kept}", flush=True)
            raise
        slowest = max(slowest, time.process_time() - began)
        if memory:
            peak = tracemalloc.get_traced_memory()[1] - held
            most = max(most, peak - 2 * len(content))
    told = f", most memory beyond 2 x size {most / 1e6:.1f} MB" if memory else ""
    print(f"{name}: {dict(seen)}, slowest {slowest:.3f} s{told}", flush=True)
    if memory and most > ALLOWANCE:
        raise SystemExit(f"{name}: a file took {most / 1e6:.1f} MB beyond twice its size")
    return seen


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", action="store_true", help="measure allocations too (slow)")
    parser.add_argument("--only", default="", help="formats whose names hold this text alone")
    arguments = parser.parse_args()
    if arguments.memory:
        tracemalloc.start()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def file(content: bytes) -> Path:
            (root / "seed").write_bytes(content)
            return root / "seed"

        for kind, data in seeds().items():
            if arguments.only not in kind:
                continue
            campaign(kind, arguments.count, arguments.seed, file, data, arguments.memory)

        def folder_campaign(kind: str, folder: Path, part: str, *, inside: bool) -> None:
            """Mutate one file of a folder, or the pickle `inside` it."""
            if arguments.only not in kind:
                return
            whole = (folder / part).read_bytes()
            target = root / "mutated"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target)

            def place(content: bytes) -> Path:
                (target / part).write_bytes(with_pickle(whole, content) if inside else content)
                return target

            data = pickle_of(whole) if inside else whole
            told = f"{kind} {part}{' pickle' if inside else ''}"
            campaign(told, arguments.count, arguments.seed, place, data, arguments.memory)

        distributed_seed(root / "dcp")
        for part in (".metadata", "__0_0.distcp"):
            folder_campaign("distributed", root / "dcp", part, inside=False)
        deepspeed_seed(root / "deepspeed")
        for part in DEEPSPEED_FILES[:2]:
            for inside in (False, True):
                folder_campaign("deepspeed", root / "deepspeed", part, inside=inside)


if __name__ == "__main__":
    sys.exit(main())
