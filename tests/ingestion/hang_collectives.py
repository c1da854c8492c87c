"""A job of three ranks over gloo that hangs: the last one leaves out a collective.

python hang_collectives.py FOLDER [FAULT]
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path

os.environ["TORCH_FR_BUFFER_SIZE"] = "2000"

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as recorder

RANKS = 3


def work(rank: int, folder: Path, fault: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS,
        timeout=datetime.timedelta(seconds=30),
    )  # fmt: skip
    numbers = torch.ones(4)
    for _ in range(5):
        dist.all_reduce(numbers)
    dist.broadcast(numbers, 0)
    pending = []
    if fault == "absent" and rank != RANKS - 1:
        pending.append(dist.all_reduce(torch.ones(8, 2), async_op=True))
    if fault == "mismatch":
        call = dist.all_reduce if rank else lambda t, async_op: dist.barrier(async_op=async_op)
        pending.append(call(torch.ones(8, 2), async_op=True))
    (folder / f"called_{rank}").touch()
    while not all((folder / f"called_{other}").exists() for other in range(RANKS)):
        time.sleep(0.01)
    time.sleep(0.3)  # what completes has completed
    (folder / "pickled").mkdir(exist_ok=True)
    (folder / "json").mkdir(exist_ok=True)
    (folder / "pickled" / f"nccl_trace_rank_{rank}").write_bytes(recorder._dump_fr_trace())
    text = recorder._dump_fr_trace_json()
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "json" / f"rank_{rank}.json").write_bytes(data)
    (folder / f"done_{rank}").touch()
    # A rank that ends breaks the calls that the others wait in.
    while not all((folder / f"done_{other}").exists() for other in range(RANKS)):
        time.sleep(0.01)
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    children = []
    for number in range(RANKS):
        child = os.fork()
        if child == 0:
            work(number, Path(sys.argv[1]), (sys.argv[2:] or ["absent"])[0])
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    sys.exit(len(failed))
