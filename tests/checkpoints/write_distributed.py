"""Writes a sharded checkpoint with torch.distributed over gloo; run once per rank."""

from __future__ import annotations

import os
import sys
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from planting import planted
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

warnings.simplefilter("ignore")
rank, world, store, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
mesh = init_device_mesh("cpu", (world,))


def sharded(tensor: torch.Tensor, place: Placement) -> DTensor:
    """Cut here: gloo cannot scatter every type."""
    local = tensor
    if isinstance(place, Shard):
        local = tensor.view(torch.uint8 if tensor.itemsize == 1 else tensor.dtype)
        local = local.chunk(world, place.dim)[rank].contiguous().view(tensor.dtype)
    return DTensor.from_local(
        local, mesh, [place], run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


state = {}
for at, (name, tensor) in enumerate(planted((34, 46)).items()):
    state[name] = sharded(tensor, (Shard(0), Shard(1), Replicate())[at % 3])
big = torch.arange(1500 * 1401, dtype=torch.float32).reshape(1500, 1401)
state["big_columns"] = sharded(big, Shard(1))
state["big_rows"] = sharded(big, Shard(0))
dcp.save(
    {"model": state, "step": 17, "rng": {"seed": torch.tensor([1, 2, 3])}}, checkpoint_id=folder
)
dist.destroy_process_group()
# gloo's threads now and then abort an interpreter that ends: all is written, so leave at once.
os._exit(0)
