"""Small jobs of four ranks over gloo, each with one planted fault; their monitors watch each other.

python tests/monitoring/replica_programs.py                  all faults, a table
python tests/monitoring/replica_programs.py --only flipped   one of them
python tests/monitoring/replica_programs.py --healthy 20000  so many exchanges without a fault
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RANKS = 4
EVERY = 8  # steps between exchanges; 16 with a slow rank
STEPS = 48
SLEEP = 0.002  # own work of a step; twice as long on a slow rank
MODES = {
    "healthy": (),
    "skipped": ("gradient_desynchronization", "parameter_desynchronization"),
    "flipped": ("parameter_desynchronization",),
    "seed": ("parameter_desynchronization",),
    "slow": ("straggler_effect",),
    "killed": ("partial_worker_failure",),
    "stopped": ("partial_worker_failure",),
    "host": ("partial_worker_failure",),
    "raised": ("partial_worker_failure",),
}
"""Faults, and what a monitor is to say of them."""
ONSET = {"seed": 0, "slow": 96}  # else 21
CULPRIT = {"host": 0, "seed": 3, "slow": 1, "flipped": 1}  # else 2
PARAMETER = {"flipped": "2.weight", "seed": "0.weight"}
WRAPS = ("ddp", "fsdp", "hsdp")
"""Replicas of DDP; of FSDP2 on a mesh of 4 x 1; of FSDP2 on one of 2 x 2."""


@dataclass
class Outcome:
    """What the ranks of a job told, and when."""

    fault: str
    wrap: str
    told: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    ended: dict[int, int | None] = field(default_factory=dict)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    errors: str = ""

    @property
    def onset(self) -> int:
        return ONSET.get(self.fault, 21)

    @property
    def culprit(self) -> int:
        return CULPRIT.get(self.fault, 2)

    @property
    def witnesses(self) -> list[int]:
        """The ranks that can still say something."""
        gone = self.fault in ("killed", "stopped", "host", "raised")
        return [rank for rank in range(RANKS) if not (gone and rank == self.culprit)]

    def first(self, rank: int) -> dict[str, Any] | None:
        """Return the first finding of a rank that is of the kind."""
        return next(
            (one for one in self.told.get(rank, ()) if one["failure_mode"] in MODES[self.fault]),
            None,
        )

    def right(self, rank: int) -> dict[str, bool]:
        """Return what a rank's first finding has right."""
        one = self.first(rank)
        if one is None:
            return {"found": False}
        pair = self.wrap == "hsdp" and self.fault in PARAMETER  # of two nobody knows which
        layer = PARAMETER.get(self.fault)
        known = one["replica_id"] == self.culprit
        sides = [side for part in one["evidence"].get("sides", ()) for side in part]
        return {
            "found": True,
            "rank": known or (pair and one["replica_id"] is None and self.culprit in sides),
            # Own work is told by blocks of two steps.
            "step": self.onset <= one["onset_step"] <= self.onset + (self.fault == "slow"),
            "parameter": layer is None or str(one["layer"]).endswith(layer),
        }


def run(
    fault: str, wrap: str, *, steps: int = STEPS, every: int = EVERY, action: str = "none",
    limit: float = 240.0, timeout: float = 10.0, sleep: float = SLEEP,
) -> Outcome:  # fmt: skip
    """Run a job until all of its ranks that can have told of the fault, or have ended.

    Ranks are forks of this process, which is to be one without threads: `jobs`.
    """
    import torch
    import torch.distributed.fsdp
    import torch.nn.parallel

    import ml_systems_debugger  # noqa: F401 - once, before the forks

    assert torch.distributed.is_available()
    made = Outcome(fault, wrap)
    if fault == "slow":  # it needs a usual time, above what a busy machine adds to it
        every, steps, sleep = 16, ONSET["slow"] + 40, 0.06
    name = tempfile.mkdtemp()  # a TemporaryDirectory would go with the first rank that ends
    folder = Path(name)
    try:
        options = {
            "fault": fault, "wrap": wrap, "steps": steps, "every": every, "action": action,
            "timeout": timeout, "sleep": sleep, "folder": name,
        }  # fmt: skip
        began = time.monotonic()
        made.ended = dict.fromkeys(range(RANKS))
        workers = [_forked(rank, options) for rank in range(RANKS)]
        try:
            while time.monotonic() - began < limit:
                made.told = {rank: _read(folder / f"told_{rank}") for rank in range(RANKS)}
                for rank, pid in enumerate(workers):
                    if made.ended[rank] is None:
                        made.ended[rank] = _ended(pid)
                told = all(made.first(rank) is not None for rank in made.witnesses)
                if all(made.ended[rank] is not None for rank in made.witnesses) or (
                    told and action == "none" and fault != "healthy"
                ):
                    break
                time.sleep(0.05)
        finally:
            made.seconds = time.monotonic() - began
            for rank, pid in enumerate(workers):
                if made.ended[rank] is None:
                    os.kill(pid, signal.SIGKILL)  # a stopped one too
                    os.waitpid(pid, 0)
        made.told = {rank: _read(folder / f"told_{rank}") for rank in range(RANKS)}
        for rank in range(RANKS):
            facts = _read(folder / f"facts_{rank}")
            made.facts[rank] = facts[-1] if facts else {}
            made.errors += f"--- rank {rank}\n" + (folder / f"output_{rank}").read_text()[-3000:]
    finally:
        shutil.rmtree(name)
    return made


def jobs(*wanted: dict[str, Any]) -> list[Outcome]:
    """Run jobs one after the other in one fresh process; see `run`."""
    done = subprocess.run(
        [sys.executable, __file__, "--jobs", json.dumps(wanted)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(wanted), done.stderr[-4000:]
    made = []
    for line in lines:
        one = Outcome(**json.loads(line))
        for name in ("told", "ended", "facts"):
            setattr(one, name, {int(rank): held for rank, held in getattr(one, name).items()})
        made.append(one)
    return made


def _forked(rank: int, options: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(str(Path(options["folder"]) / f"output_{rank}"), os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work(rank, options)
        code = 0
    except BaseException as error:  # noqa: BLE001 - also SystemExit: the fork is to end here
        # As the interpreter does it where nobody catches the error.
        sys.last_value = error
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


# What runs in a rank.


def work(rank: int, options: dict[str, Any]) -> None:
    """Train on one rank, with the fault."""
    import torch
    import torch.distributed as dist

    from ml_systems_debugger import Monitor, ReplicaAgreement

    torch.set_num_threads(1)
    folder, fault = Path(options["folder"]), options["fault"]
    store = _store(rank, folder)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=RANKS, timeout=datetime.timedelta(seconds=600)
    )
    culprit, onset = CULPRIT.get(fault, 2), ONSET.get(fault, 21)
    mine = rank == culprit
    model, plain = _model(rank, options["wrap"], fault == "seed" and mine)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    told = (folder / f"told_{rank}").open("a")

    def tell(finding: Any) -> None:
        print(json.dumps({**finding.to_dict(), "told_at": state["step"]}), file=told, flush=True)

    state = {"step": -1}
    monitor = Monitor(
        model, optimizer, action=options["action"], on_finding=tell, strict=False,
        replicas=ReplicaAgreement(every=options["every"], timeout=options["timeout"]),
    )  # fmt: skip
    data = torch.Generator().manual_seed(1000 + rank)
    began = time.perf_counter()
    for step in range(options["steps"]):
        state["step"] = step
        x = torch.randn(32, 16, generator=data)
        pause = options["sleep"] * (2 if fault == "slow" and mine and step >= onset else 1)
        if fault in ("killed", "host") and mine and step == onset:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "stopped" and mine and step == onset:
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "raised" and mine and step == onset:
            raise ValueError("a bad batch")
        optimizer.zero_grad()
        skip = fault == "skipped" and mine and step == onset
        with _unsynchronised(model, options["wrap"], skip):
            plain.pause = pause
            loss = (model(x) - x[:, :4].sin()).square().mean()
            loss.backward()
        optimizer.step()
        if fault == "flipped" and mine and step == onset:
            _flip(model)
        monitor.step(loss=loss)
        if monitor.should_stop:
            break
    channel = next(p for p in monitor._probes if p.what.startswith("the agreement")).channel
    monitor.close()
    facts = {
        "steps": state["step"] + 1, "sent": channel.sent, "answered": channel.answered,
        "payload": channel.payload, "located": channel.located,
        "seconds": time.perf_counter() - began, "monitor": monitor.cost,
        "failed": [r.detector_name for r in monitor.report().failed_checks],
    }  # fmt: skip
    (folder / f"facts_{rank}").write_text(json.dumps(facts) + "\n")
    dist.destroy_process_group()


def _store(rank: int, folder: Path) -> Any:
    """Return the store of the job: rank 0 takes whatever port is free."""
    import torch.distributed as dist

    limit = datetime.timedelta(seconds=300)
    place = folder / "port"
    if rank == 0:
        store = dist.TCPStore(
            "127.0.0.1", 0, RANKS, is_master=True, timeout=limit, wait_for_workers=False
        )
        (folder / "port_").write_text(str(store.port))
        (folder / "port_").rename(place)
        return store
    while not place.exists():
        time.sleep(0.02)
    return dist.TCPStore("127.0.0.1", int(place.read_text()), RANKS, timeout=limit)


def _model(rank: int, wrap: str, other_seed: bool) -> tuple[Any, Any]:
    """Return the wrapped model, and the part of it that takes its time."""
    import torch
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    class Pause(nn.Module):
        pause = 0.0

        def forward(self, x: Any) -> Any:
            time.sleep(self.pause)
            return x

    def made(seed: int) -> Any:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), Pause(), nn.Tanh(), nn.Linear(32, 4)
        )

    model = made(0)
    plain = model[3]
    if wrap == "ddp":
        wrapped = DistributedDataParallel(model)
        if other_seed:  # after the wrapper has made all equal
            with torch.no_grad():
                for held, new in zip(model.parameters(), made(1).parameters(), strict=True):
                    held.copy_(new)
        return wrapped, plain
    if other_seed:
        model.load_state_dict(made(1).state_dict())
    shape = (RANKS, 1) if wrap == "fsdp" else (2, RANKS // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
    for at in (0, 2, 5):
        fully_shard(model[at], mesh=mesh)
    return fully_shard(model, mesh=mesh), plain


@contextlib.contextmanager
def _unsynchronised(model: Any, wrap: str, skip: bool) -> Any:
    if not skip:
        yield
    elif wrap == "ddp":
        with model.no_sync():
            yield
    else:
        model.set_requires_all_reduce(False)
        yield
        model.set_requires_all_reduce(True)


def _flip(model: Any) -> None:
    """Flip the lowest bit of the mantissa of one number of the second layer."""
    import torch

    inner = getattr(model, "module", model)
    weight = inner[2].weight
    local = getattr(weight, "_local_tensor", weight).detach()
    bits = local.view(torch.int32).reshape(-1)
    bits[7] = int(bits[7]) ^ 1


def main() -> None:
    """Print a table of all faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs")
    parser.add_argument("--only", nargs="*", default=list(MODES))
    parser.add_argument("--wraps", nargs="*", default=list(WRAPS))
    parser.add_argument("--healthy", type=int, default=0)
    given = parser.parse_args()
    if given.jobs:
        for wanted in json.loads(given.jobs):
            print(json.dumps(asdict(run(**wanted))), flush=True)
        return
    if given.healthy:
        for wrap in given.wraps:
            one = run("healthy", wrap, steps=given.healthy, every=1, sleep=0.0, limit=1e6)
            told = sum(len(found) for found in one.told.values())
            print(wrap, "exchanges", one.facts[0].get("answered"), "findings", told, one.facts[0])
            for found in one.told[0][:20]:
                print("  ", found["severity"], found["message"])
        return
    print("| fault | job | ranks that told it | rank | step | parameter | told at step | s |")
    print("|---|---|---|---|---|---|---|---|")
    for fault in given.only:
        for wrap in given.wraps:
            one = run(fault, wrap)
            rights = [one.right(rank) for rank in one.witnesses]
            found = [right for right in rights if right["found"]]
            told = [one.first(rank) for rank in one.witnesses]
            at = sorted({x["told_at"] for x in told if x is not None})
            cells = [
                f"{sum(right[what] for right in found)} of {len(found)}"
                for what in ("rank", "step", "parameter")
            ]
            extra = sum(len(x) for x in one.told.values()) if fault == "healthy" else ""
            row = [f"{fault} {extra}", wrap, f"{len(found)} of {len(rights)}", *cells, at]
            print("|", " | ".join(map(str, row)), "|", f"{one.seconds:.0f} |", flush=True)
            if (
                (fault != "healthy" and len(found) < len(rights))
                or "--verbose" in sys.argv
                or any(not all(right.values()) for right in rights)
            ):
                for x in [y for y in told if y][:1] or one.told[0][:3]:
                    print("   ", x["replica_id"], x["onset_step"], x["layer"], x["message"])
                print(one.errors[-2500:])


if __name__ == "__main__":
    main()
