"""Trains a network that FSDP2 shards; what is bad on rank 1 is put there. Run once per rank.

A state of its optimizer is infinite from step 20 to 39, a gradient NaN at step 40.

    python sharded_program.py RANK WORLD STORE

Prints the findings of the monitor as JSON, one a line.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}

import torch  # noqa: E402 - threads and ranks are taken from the environment
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402

from ml_systems_debugger import Monitor  # noqa: E402

torch.set_num_threads(1)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=world
)
torch.manual_seed(0)
# The last bias has one value: nothing of it is on rank 1.
model = torch.nn.Sequential(
    torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5), torch.nn.Tanh(),
    torch.nn.Linear(5, 1),
)  # fmt: skip
mesh = init_device_mesh("cpu", (world,))
for layer in model:
    if isinstance(layer, torch.nn.Linear):
        fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
monitor = Monitor(model, optimizer)
target = torch.randn(6, 1)
for step in range(41):
    x = torch.randn(64, 6)
    loss = (model(x) - x @ target).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    if step == 40 and rank == 1:
        model[2].weight.grad.to_local()[0, 0] = float("nan")
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    if step in (20, 39) and rank == 1:  # the square of a large gradient: its weight rests
        damaged = optimizer.state[model[2].weight]["exp_avg_sq"].to_local()
        damaged[0, 3] = float("inf") if step == 20 else 1.0
    for finding in monitor.step(loss=float(loss)):
        told = {"step": step, "mode": finding.failure_mode.value, "layer": finding.layer,
                "onset": finding.onset_step, "series": finding.evidence.get("series", ""),
                "state": finding.evidence.get("state")}  # fmt: skip
        print(json.dumps(told), flush=True)
assert not monitor.report().failed_checks, monitor.report()
torch.distributed.destroy_process_group()
