"""Trains a small network with DeepSpeed over gloo and saves it; run once per rank.

    python write_deepspeed.py RANK WORLD STORE FOLDER STAGE

Beside the checkpoint it leaves `weights.pt`: what DeepSpeed's own conversion makes of it.
"""

from __future__ import annotations

import os
import sys
import warnings

warnings.simplefilter("ignore")
rank, world, store, folder, stage = sys.argv[1:]
os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}

import deepspeed  # noqa: E402 - it looks at the environment
import torch  # noqa: E402
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint  # noqa: E402

torch.distributed.init_process_group(
    "gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world)
)
deepspeed.init_distributed("gloo")
torch.manual_seed(0)
# Odd sizes, which ZeRO 3 fills up with memory as it was; here it is NaN each time.
torch.use_deterministic_algorithms(True)
model = torch.nn.Sequential(
    torch.nn.Linear(12, 17), torch.nn.LayerNorm(17), torch.nn.ReLU(), torch.nn.Linear(17, 5)
)
model[0].bias.requires_grad_(False)  # frozen weights are kept apart
decayed = [model[0].weight, model[3].weight]
plain = [model[1].weight, model[1].bias, model[3].bias]
engine, *_ = deepspeed.initialize(
    model=model,
    model_parameters=[{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
    config={
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": int(stage)},
        "bf16": {"enabled": True},
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    },
)
for _ in range(3):
    loss = engine(torch.randn(4, 12, dtype=torch.bfloat16)).pow(2).mean()
    engine.backward(loss)
    engine.step()
engine.save_checkpoint(folder)
torch.distributed.barrier()
if rank == "0":
    found = get_fp32_state_dict_from_zero_checkpoint(folder)
    torch.save({name: one.detach().clone() for name, one in found.items()}, f"{folder}/weights.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
