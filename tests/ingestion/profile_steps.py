"""A training loop under the PyTorch profiler: waits for data, talks over gloo.

python profile_steps.py FOLDER
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.data import DataLoader


def slow(batch: list[int]) -> torch.Tensor:
    time.sleep(0.01)
    return torch.tensor(batch, dtype=torch.float32)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder / 'm'}", rank=0, world_size=1)
    weight = torch.ones(4, requires_grad=True)
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=1, warmup=1, active=4, repeat=1),
        on_trace_ready=lambda p: p.export_chrome_trace(str(folder / "rank0.pt.trace.json")),
        profile_memory=True,
    ) as profiler:
        for batch in DataLoader(range(32), batch_size=4, collate_fn=slow):
            (weight * batch).sum().backward()
            dist.all_reduce(weight.grad)
            profiler.step()
    # The threads of gloo and of the profiler do not always end in order.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
