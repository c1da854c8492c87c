"""DeepSpeed ZeRO folders: model states by model-parallel rank, optimizer states by rank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, ClassVar, NamedTuple

from ..core import MLSystemsDebuggerError, SchemaError
from ..core.pickles import Instance
from ..core.shown import shown
from ._globals import judge_globals
from ._layouts import Piece, Pieces
from ._place import Place
from ._source import open_source
from ._torch import TorchArchive, open_archive
from ._torch_tensors import TorchTensor, tensor_of
from ._zero_padding import counts_of, share_of, values_of, without_padding
from .contract import CheckpointFormat, TensorInfo, formats
from .dtypes import DTYPES
from .finding import CheckpointFinding
from .torch_zip import archive_tensors, shared_storages

__all__ = ["DeepSpeedFormat"]

_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)(?:_\d+)?_model_states\.pt")
_OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")

_FLAT = re.compile(
    r"optimizer_state_dict\.(?:fp32_flat_groups\.(\d{1,9})"
    r"|optimizer_state_dict\.state\.(\d{1,9})\.\w+)"
)

# What its own checkpoints name, by whole names: data only. A prefix would let through what its
# modules have imported.
_OWN = {
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaleProfile",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
    "deepspeed.utils.tensor_fragment.tensor_fragment",
}  # fmt: skip


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
    per rank, ZeRO 3 cuts each parameter. ZeRO-3 model states hold no weights, and what
    it fills its parts up with is left out: see `_zero_padding`.
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
        waiting: dict[tuple[int, int], list[TensorInfo]] = {}
        for file in files:
            try:
                with self.folder.open(file) as source:
                    archive = open_archive(source, file)
                self.findings.extend(judge_globals(_unknown(archive), file))
                _looks_saved(archive, file)
                found = list(archive_tensors(archive, f"{file}:", self.unread))
            except MLSystemsDebuggerError as error:
                self.unread.append(str(error))
                continue
            self.findings.extend(shared_storages(found))
            if match := _OPTIMIZER.fullmatch(file):
                optimizers.setdefault(int(match[2]), {})[int(match[1])] = archive
                waiting[int(match[2]), int(match[1])] = found
                continue
            if match := _MODEL.fullmatch(file):
                models.setdefault(int(match[2]), archive)
                found = _frozen(found, archive, int(match[1]) if match[1] else None)
            yield from found
        for (mp, rank), found in sorted(waiting.items()):
            yield from self._used(found, rank, models.get(mp), optimizers[mp])
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

    def _used(
        self,
        found: list[TensorInfo],
        rank: int,
        model: TorchArchive | None,
        ranks: dict[int, TorchArchive],
    ) -> list[TensorInfo]:
        """Return the tensors of a rank's optimizer states, of flat ones what ZeRO 3 uses."""
        if model is None:
            return found
        try:
            state = _optimizer_state(ranks[rank])
            if _stage(state.get("zero_stage", 2)) != 3:
                return found
            world = _world(state, ranks[rank].source_name)
            sizes = [flat.size for flat in _flat_groups(ranks[rank], 3)]
            counts = counts_of(_param_shapes(model))
        except SchemaError:
            return found  # told where the weights are put together
        if sum(share_of(count, rank, world)[1] for count in counts) != sum(sizes):
            return found
        values = values_of(counts, rank, world)
        out = []
        for info in found:
            match = _FLAT.fullmatch(info.name.partition(":")[2])
            number = int(match[1] or match[2]) if match else len(sizes)
            flat = info.layout is None and number < len(sizes) and info.shape == (sizes[number],)
            out.append(without_padding(info, sum(sizes[:number]), values) if flat else info)
        return out

    def _weights(
        self, model: TorchArchive, ranks: dict[int, TorchArchive], prefix: str
    ) -> Iterator[TensorInfo]:
        try:
            yield from self._masters(_param_shapes(model), ranks, prefix)
        except SchemaError as error:
            self.unread.append(str(error))

    def _masters(
        self,
        shapes: list[dict[str, tuple[int, ...]]],
        ranks: dict[int, TorchArchive],
        prefix: str,
    ) -> Iterator[TensorInfo]:
        if not shapes or sorted(ranks) != list(range(len(ranks))) or not ranks:
            return
        archives = [ranks[r] for r in sorted(ranks)]
        state = _optimizer_state(archives[0])
        world = _world(state, archives[0].source_name)
        if world != len(ranks):
            message = f"{len(ranks)} of {world} optimizer partitions are there"
            self.unread.append(message)
            self.findings.append(
                CheckpointFinding.of("missing_shard", "critical", message, of=world)
            )
            return
        stage = _stage(state.get("zero_stage", 2))
        flat = [_flat_groups(archive, stage) for archive in archives]
        if stage == 3:
            yield from _by_parameter(shapes, flat, prefix)
        else:
            gaps = _paddings(state.get("param_alignment_paddings"), shapes)
            yield from _by_group(shapes, gaps, flat, prefix)


def _frozen(found: list[TensorInfo], model: TorchArchive, rank: int | None) -> list[TensorInfo]:
    """Return the tensors of model states, of parts of frozen weights what ZeRO 3 uses."""
    shapes, world = model.root.get("frozen_param_shapes"), model.root.get("dp_world_size")
    if rank is None or not isinstance(shapes, dict) or type(world) is not int or world < 1:
        return found
    out = []
    for info in found:
        name = info.name.partition(":frozen_param_fragments.")[2]
        shape = shapes.get(name)
        if name and isinstance(shape, tuple) and _is_shape(shape) and info.layout is None:
            mine, share = share_of(prod(shape), rank, world)
            if info.shape == (share,):
                info = without_padding(info, 0, [(0, mine)] if mine else [])
        out.append(info)
    return out


def _looks_saved(archive: TorchArchive, file: str) -> None:
    """Raise where a file holds none of what DeepSpeed saves under its name."""
    key = "module" if _MODEL.fullmatch(file) else "optimizer_state_dict"
    if not isinstance(archive.root, dict) or key not in archive.root:
        raise SchemaError(f"no dict of states with {key!r}", source=archive.source_name)


def _world(state: dict[str, Any], file: str) -> int:
    """Return of how many ranks the partitions were saved."""
    said = state.get("partition_count")
    counts: list[Any] = said if isinstance(said, list) else [said]
    if not counts or not all(type(n) is int and n > 0 for n in counts):
        raise SchemaError("a partition_count that is none", source=file, value=said)
    return int(max(counts))


def _stage(said: Any) -> int:
    """Return the ZeRO stage, a number in old checkpoints and a member of an enum since."""
    if isinstance(said, Instance) and isinstance(said.args, tuple) and len(said.args) == 1:
        said = said.args[0]
    if type(said) is not int or said not in (0, 1, 2, 3):
        raise SchemaError("a zero_stage that is not known", value=said)
    return said


def _paddings(said: Any, shapes: list[dict[str, tuple[int, ...]]]) -> list[list[int]]:
    """Return how many values of padding follow each parameter of each group; old ones have none."""
    if said is None:
        return [[0] * len(group) for group in shapes]
    good = (
        isinstance(said, list)
        and len(said) >= len(shapes)
        and all(isinstance(group, list) for group in said)
        and all(type(n) is int and 0 <= n < 1 << 48 for group in said for n in group)
        and all(len(gaps) == len(group) for gaps, group in zip(said, shapes, strict=False))
    )
    if not good:
        raise SchemaError("param_alignment_paddings that do not fit param_shapes", value=said)
    return list(said)


def _by_group(
    shapes: list[dict[str, tuple[int, ...]]],
    gaps: list[list[int]],
    ranks: list[list[_Flat]],
    prefix: str,
) -> Iterator[TensorInfo]:
    """ZeRO 1 and 2: the flat buffer of a group is the ranks' partitions one behind the other."""
    align = 2 * len(ranks)  # buffers are padded to it, or were before they were saved
    for number, group in enumerate(shapes):
        if any(number >= len(r) for r in ranks):
            raise SchemaError("fewer parameter groups than param_shapes says", value=number)
        pieces = [r[number] for r in ranks]
        at, have = 0, sum(p.size for p in pieces)
        for (name, shape), gap in zip(group.items(), gaps[number], strict=True):
            count = prod(shape)
            if at + count > have:
                raise SchemaError(
                    f"{shown(name)} reaches beyond the {have} values of its group", value=at + count
                )
            yield _info(prefix + name, shape, _cut(pieces, at, count), pieces[0].dtype)
            at += count + gap
        if -(-at // align) != -(-have // align):
            raise SchemaError(
                f"group {number} holds {have} values, and its parameters take {at}", value=have
            )


def _by_parameter(
    shapes: list[dict[str, tuple[int, ...]]], ranks: list[list[_Flat]], prefix: str
) -> Iterator[TensorInfo]:
    """ZeRO 3: each parameter is cut into one equal piece per rank, the last one padded."""
    at = 0
    for group in shapes:
        for name, shape in group.items():
            count = prod(shape)
            share = share_of(count, 0, len(ranks))[1]
            pieces: list[Piece] = []
            for rank, groups in enumerate(ranks):
                mine, _ = share_of(count, rank, len(ranks))
                held = sum(p.size for p in groups)
                if at + mine > held:
                    raise SchemaError(
                        f"{shown(name)} reaches beyond the {held} values of rank {rank}",
                        value=at + mine,
                    )
                pieces.extend(_cut(groups, at, mine))
            yield _info(prefix + name, shape, pieces, ranks[0][0].dtype)
            at += share
    for rank, groups in enumerate(ranks):
        if (held := sum(p.size for p in groups)) != at:
            raise SchemaError(
                f"rank {rank} holds {held} values, and its parts of parameters take {at}",
                value=held,
            )


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
    return [g for g in archive.globals if "." in g.name or g.path not in _OWN]


def _param_shapes(archive: TorchArchive) -> list[dict[str, tuple[int, ...]]]:
    """Return names and shapes of each parameter group; none where the file has none."""
    found = archive.root.get("param_shapes")
    if found is None:
        return []
    groups: list[Any] = found if isinstance(found, list) else [found]
    good = all(
        isinstance(group, dict)
        and all(isinstance(name, str) and _is_shape(shape) for name, shape in group.items())
        for group in groups
    )
    if not good:
        raise SchemaError("param_shapes that are no names and shapes", source=archive.source_name)
    return groups


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int and 0 <= n < 1 << 48 for n in value)


def _optimizer_state(archive: TorchArchive) -> dict[str, Any]:
    state = archive.root["optimizer_state_dict"]
    if not isinstance(state, dict):
        raise SchemaError("an optimizer_state_dict that is none", source=archive.source_name)
    return state


def _flat_groups(archive: TorchArchive, stage: int) -> list[_Flat]:
    """Return a rank's flat fp32 buffers, one for each parameter group."""
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    groups = _optimizer_state(archive).get(key)
    if not isinstance(groups, list) or not groups:
        raise SchemaError(f"no {key}", source=archive.source_name)
    out = []
    for value in groups:
        tensor: TorchTensor | None = tensor_of(value, archive.source_name)
        if tensor is None or len(tensor.shape) != 1 or tensor.strides != (1,):
            raise SchemaError(f"{key} that are not flat", source=archive.source_name)
        info = archive.place(key, tensor)
        out.append(_Flat(info.file, info.offset, tensor.shape[0], tensor.dtype))
    if len({one.dtype for one in out}) > 1:
        raise SchemaError(f"{key} of several types", source=archive.source_name)
    return out
