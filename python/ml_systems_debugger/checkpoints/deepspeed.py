"""DeepSpeed ZeRO folders: model states by model-parallel rank, optimizer states by rank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, ClassVar, NamedTuple

from ..core import MLSystemsDebuggerError, SchemaError
from ..core.shown import shown
from ._globals import judge_globals
from ._layouts import Piece, Pieces
from ._place import Place
from ._source import open_source
from ._torch import TorchArchive, TorchTensor, open_archive, tensor_of
from .contract import CheckpointFormat, TensorInfo, formats
from .dtypes import DTYPES
from .finding import CheckpointFinding
from .torch_zip import archive_tensors, shared_storages

__all__ = ["DeepSpeedFormat"]

_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)(?:_\d+)?_model_states\.pt")
_OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")

_OWN = ("deepspeed.runtime.", "deepspeed.utils.tensor_fragment")  # scalers, stages, fragments


class _Flat(NamedTuple):
    """One rank's part of the flat fp32 master weights of a parameter group."""

    file: str
    offset: int
    size: int
    dtype: str


@formats.register("deepspeed")
class DeepSpeedFormat(CheckpointFormat):
    """A ``global_step*`` folder, or its parent with ``latest``.

    Every tensor of every file is judged under its path in that file. Where
    ``param_shapes`` and the flat fp32 partitions of all ranks are there, the
    fp32 master weights are judged once more by parameter, under
    ``fp32.<name>``: ZeRO 1 and 2 cut each group's flat buffer into one piece
    per rank, ZeRO 3 cuts each parameter. ZeRO-3 model states hold no weights.
    Source: DeepSpeed's own conversion script, ``zero_to_fp32``.
    """

    name: ClassVar[str] = "deepspeed"

    def __init__(self, path: Place, options: Any = None) -> None:
        super().__init__(_step_folder(path), options)

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:  # noqa: ARG003 - a folder has no head
        """Return 0.95 for a folder with DeepSpeed's file names."""
        if not path.is_dir():
            return 0.0
        try:
            folder = _step_folder(path)
        except SchemaError:
            return 0.95
        return 0.95 if any(_kind(p.name) for p in folder.iterdir()) else 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors of every file, then the fp32 weights by parameter."""
        files = sorted(p.name for p in self.path.iterdir() if _kind(p.name))
        self._ranks(files)
        models: dict[int, TorchArchive] = {}
        optimizers: dict[int, dict[int, TorchArchive]] = {}
        for file in files:
            try:
                with self.folder.open(file) as source:
                    archive = open_archive(source, file)
                self.findings.extend(judge_globals(_unknown(archive), file))
                found = list(archive_tensors(archive, f"{file}:", self.unread))
            except MLSystemsDebuggerError as error:
                self.unread.append(str(error))
                continue
            self.findings.extend(shared_storages(found))
            yield from found
            if match := _OPTIMIZER.fullmatch(file):
                optimizers.setdefault(int(match[2]), {})[int(match[1])] = archive
            elif match := _MODEL.fullmatch(file):
                models.setdefault(int(match[2]), archive)
        for rank, model in sorted(models.items()):
            prefix = "fp32." if len(models) == 1 else f"fp32.mp_rank_{rank:02d}."
            yield from self._weights(model, optimizers.get(rank, {}), prefix)

    def _ranks(self, files: list[str]) -> None:
        """Find ranks that are missing between those that are there."""
        ranks = {int(m[1]) for f in files if (m := _OPTIMIZER.fullmatch(f))}
        lost = sorted(set(range(max(ranks, default=-1) + 1)) - ranks)
        if lost:
            message = f"optimizer states of ranks {', '.join(map(str, lost[:20]))} are missing"
            self.unread.append(message)
            self.findings.append(
                CheckpointFinding.of("missing_shard", "critical", message, ranks=lost[:100])
            )

    def _weights(
        self, model: TorchArchive, ranks: dict[int, TorchArchive], prefix: str
    ) -> Iterator[TensorInfo]:
        shapes = _param_shapes(model.root)
        if not shapes or sorted(ranks) != list(range(len(ranks))) or not ranks:
            return
        parts = [_flat_groups(ranks[r]) for r in sorted(ranks)]
        states = [_optimizer_state(ranks[r].root) for r in sorted(ranks)]
        stage = states[0].get("zero_stage", 2)
        said = states[0].get("partition_count")
        world = max(said) if isinstance(said, list) and said else said
        if isinstance(world, int) and world != len(ranks):
            message = f"{len(ranks)} of {world} optimizer partitions are there"
            self.unread.append(message)
            self.findings.append(
                CheckpointFinding.of("missing_shard", "critical", message, of=world)
            )
            return
        if any(p is None for p in parts):
            return
        flat = [p for p in parts if p is not None]
        cut = _by_parameter if stage == 3 else _by_group
        try:
            yield from cut(shapes, flat, prefix)
        except SchemaError as error:
            self.unread.append(str(error))


def _by_group(
    shapes: list[dict[str, tuple[int, ...]]], ranks: list[list[_Flat]], prefix: str
) -> Iterator[TensorInfo]:
    """ZeRO 1 and 2: the flat buffer of a group is the ranks' partitions one behind the other."""
    for number, group in enumerate(shapes):
        if any(number >= len(r) for r in ranks):
            raise SchemaError("fewer parameter groups than param_shapes says", value=number)
        pieces = [r[number] for r in ranks]
        at, have = 0, sum(p.size for p in pieces)
        for name, shape in group.items():
            count = prod(shape)
            if at + count > have:
                raise SchemaError(
                    f"{shown(name)} reaches beyond the {have} values of its group", value=at + count
                )
            yield _info(prefix + name, shape, _cut(pieces, at, count), pieces[0].dtype)
            at += count


def _by_parameter(
    shapes: list[dict[str, tuple[int, ...]]], ranks: list[list[_Flat]], prefix: str
) -> Iterator[TensorInfo]:
    """ZeRO 3: each parameter is cut into one equal piece per rank, the last one padded."""
    at = 0
    for group in shapes:
        for name, shape in group.items():
            count = prod(shape)
            share = -(-count // len(ranks))
            pieces: list[Piece] = []
            for rank, groups in enumerate(ranks):
                mine = max(0, min(share, count - rank * share))
                held = sum(p.size for p in groups)
                if at + mine > held:
                    raise SchemaError(
                        f"{shown(name)} reaches beyond the {held} values of rank {rank}",
                        value=at + mine,
                    )
                pieces.extend(_cut(groups, at, mine))
            yield _info(prefix + name, shape, pieces, ranks[0][0].dtype)
            at += share


def _cut(flat: list[_Flat], start: int, count: int) -> list[Piece]:
    """Return the bytes of ``[start, start + count)`` of buffers that follow one another."""
    out, at = [], 0
    for one in flat:
        low, high = max(start, at), min(start + count, at + one.size)
        if low < high:
            item = DTYPES[one.dtype].bits // 8
            out.append(Piece(one.file, one.offset + (low - at) * item, (high - low) * item))
        at += one.size
    return out


def _info(name: str, shape: tuple[int, ...], pieces: list[Piece], dtype: str) -> TensorInfo:
    nbytes = prod(shape) * DTYPES[dtype].bits // 8
    if len(pieces) == 1:
        return TensorInfo(name, dtype, shape, pieces[0].file, pieces[0].offset, nbytes)
    first = pieces[0].file if pieces else ""
    offset = pieces[0].offset if pieces else 0
    return TensorInfo(name, dtype, shape, first, offset, nbytes, Pieces(tuple(pieces)))


def _kind(name: str) -> bool:
    return bool(_MODEL.fullmatch(name) or _OPTIMIZER.fullmatch(name))


def _step_folder(path: Place) -> Place:
    """Return the folder of the step that ``latest`` names, or the folder itself."""
    latest = path / "latest"
    if any(_kind(p.name) for p in path.iterdir()) or not latest.is_file():
        return path
    with open_source(latest, "latest") as source:
        head = source.read(0, min(source.size, 256), "the name of the latest step")
    name = head.decode("utf-8", "backslashreplace").strip()
    inside = path / name
    if not name or "/" in name or "\\" in name or name in (".", "..") or inside.is_symlink():
        raise SchemaError("latest names no folder beside it", source="latest", value=shown(name))
    if not inside.is_dir():
        raise SchemaError("latest names a folder that is not there", source="latest", value=name)
    return inside


def _unknown(archive: TorchArchive) -> list[Any]:
    """Leave out DeepSpeed's own classes: every one of its checkpoints names them."""
    return [g for g in archive.globals if "." in g.name or not g.module.startswith(_OWN)]


def _param_shapes(root: Any) -> list[dict[str, tuple[int, ...]]]:
    found = root.get("param_shapes") if isinstance(root, dict) else None
    groups: list[Any] = found if isinstance(found, list) else [found]
    if not all(isinstance(g, dict) for g in groups):
        return []
    shapes: list[dict[str, tuple[int, ...]]] = groups
    good = all(
        isinstance(n, str)
        and isinstance(s, tuple)
        and all(type(k) is int and 0 <= k < 1 << 48 for k in s)
        for g in shapes
        for n, s in g.items()
    )
    return shapes if good else []


def _optimizer_state(root: Any) -> dict[str, Any]:
    state = root.get("optimizer_state_dict") if isinstance(root, dict) else None
    return state if isinstance(state, dict) else {}


def _flat_groups(archive: TorchArchive) -> list[_Flat] | None:
    state = _optimizer_state(archive.root)
    for key in ("single_partition_of_fp32_groups", "fp32_flat_groups"):
        groups = state.get(key)
        if not isinstance(groups, list) or not groups:
            continue
        out = []
        for value in groups:
            tensor: TorchTensor | None = tensor_of(value, archive.source_name)
            if tensor is None or len(tensor.shape) != 1 or tensor.strides != (1,):
                return None
            info = archive.place(key, tensor)
            out.append(_Flat(info.file, info.offset, tensor.shape[0], tensor.dtype))
        return out
    return None
