"""`scan_on`: the shares of one scan, done by the workers of a Ray or a Dask cluster."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core import ConfigurationError, MissingDependencyError, check_count
from ._place import is_remote, without_secrets
from .contract import Options
from .report import CheckpointReport
from .shards import merge, scan_shard

__all__ = ["ENGINES", "scan_on"]


@dataclass(frozen=True, slots=True)
class _Job:
    """What every share of one scan has in common; it goes to the workers."""

    path: str
    shares: int
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    workers: int
    options: Options | None


def _share(job: _Job, number: int) -> dict[str, Any]:
    return scan_shard(
        job.path, (number, job.shares), include=job.include, exclude=job.exclude,
        workers=job.workers, options=job.options,
    )  # fmt: skip


class _Engine(Protocol):
    """Does the shares of a job somewhere and yields their results, in any order."""

    def cpus(self) -> int: ...

    def run(self, job: _Job) -> Iterator[dict[str, Any]]: ...


class _Ray:
    """The cluster that this process or ``RAY_ADDRESS`` is connected to, else one of its own."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def cpus(self) -> int:
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def run(self, job: _Job) -> Iterator[dict[str, Any]]:
        remote = self.ray.remote(num_cpus=1, max_retries=2)(_share)
        waiting = [remote.remote(job, n) for n in range(1, job.shares + 1)]
        try:
            while waiting:
                ready, waiting = self.ray.wait(waiting, num_returns=1)
                for one in ready:
                    yield _result(self.ray, one)
        finally:
            for one in waiting:
                self.ray.cancel(one)


def _result(ray: Any, one: Any) -> dict[str, Any]:
    try:
        out: dict[str, Any] = ray.get(one)
    except ray.exceptions.RayTaskError as error:
        # What the reader raised, as it would have been raised here.
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise cause from error
    return out


class _Dask:
    """The client of this process, or the one given."""

    def __init__(self, distributed: Any, client: Any) -> None:
        self.distributed = distributed
        self.client = client

    def cpus(self) -> int:
        return max(1, int(sum(self.client.nthreads().values())))

    def run(self, job: _Job) -> Iterator[dict[str, Any]]:
        # Not pure: a second scan of the same path looks again.
        futures = [self.client.submit(_share, job, n, pure=False) for n in range(1, job.shares + 1)]
        try:
            for _, found in self.distributed.as_completed(futures, with_results=True):
                yield found
        finally:
            self.client.cancel(futures)


@contextmanager
def _ray() -> Iterator[_Engine]:
    ray = _imported("ray", "ray")
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
    try:
        yield _Ray(ray)
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _dask() -> Iterator[_Engine]:
    distributed = _imported("distributed", "dask")
    try:
        client: Any = nullcontext(distributed.get_client())
    except ValueError:  # none in this process yet
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        client = (
            distributed.Client(address)
            if address
            else distributed.Client(dashboard_address=None, threads_per_worker=1)
        )
    with client as one:
        yield _Dask(distributed, one)


ENGINES = {"ray": _ray, "dask": _dask}
"""How a cluster is reached, by the name of its engine."""


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"scanning on {extra} takes {module}; install it with "
            f'pip install "ml-systems-debugger[{extra}]"'
        ) from error


def scan_on(
    path: str | os.PathLike[str],
    engine: str,
    *,
    shares: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int | None = None,
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> CheckpointReport:
    """Scan a checkpoint with the workers of a cluster; the report is that of `scan`, bit for bit.

    Every worker opens the checkpoint by itself: the path is one that all of them see, on a shared
    filesystem or behind a URL.

    Parameters
    ----------
    path, include, exclude, options
        As for `scan`.
    engine : str
        ``"ray"`` or ``"dask"``: the cluster that this process is connected to, else the one
        that ``RAY_ADDRESS`` or ``DASK_SCHEDULER_ADDRESS`` names, else one on this machine.
    shares : int, optional
        Parts that the work is cut into; by default one for each CPU of the cluster.
    workers : int, optional
        Threads of each share; by default two.
    progress : callable, optional
        Told bytes done and bytes in all, whenever a share is done.
    stop : threading.Event, optional
        Ends the scan when set: what is not done yet is then missing from the report.

    Returns
    -------
    CheckpointReport

    Raises
    ------
    MissingDependencyError
        Where the engine is not installed.
    ConfigurationError
        For an engine that is not known.
    UnsupportedFormatError, SchemaError, OSError
        As for `scan`, wherever they were raised.
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"engine is one of {', '.join(sorted(ENGINES))}, got {engine!r}")
    if shares is not None:
        check_count(1, shares=shares)
    # A worker's own folder is another one.
    given = str(path) if is_remote(path) else str(Path(path).absolute())
    results: list[dict[str, Any]] = []
    with ENGINES[engine]() as cluster:
        count = shares or cluster.cpus()
        job = _Job(given, count, tuple(include), tuple(exclude), workers or 2, options)
        try:
            for result in cluster.run(job):
                results.append({**result, "path": without_secrets(path)})
                if progress is not None:
                    done = sum(int(read) for r in results for _, _, read in r["files"])
                    progress(done, done * count // len(results))  # shares are about as large
                if stop is not None and stop.is_set():
                    break
        except KeyboardInterrupt:
            if not results:
                raise
    return merge(results if len(results) == count else _completed(results, count))


def _completed(results: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the results with an empty one, marked as interrupted, for each share not done."""
    first = results[0]
    nothing = {
        "which": "", "rows": "", "saturated": "", "zeros": [], "ranges": [], "unread": [],
        "interrupted": True, "changed": False, "seconds": 0.0,
        "files": [[n, s, 0] for n, s, _ in first["files"]],
    }  # fmt: skip
    done = {r["shard"][0] for r in results}
    lacking = [n for n in range(1, count + 1) if n not in done]
    return [*results, *({**first, **nothing, "shard": [n, count]} for n in lacking)]
