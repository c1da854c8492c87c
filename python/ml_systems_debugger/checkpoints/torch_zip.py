"""torch's zip archives: ``.pt .pth .bin .ckpt`` as `torch.save` writes them since 1.6."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod
from typing import ClassVar

from ..core import MLSystemsDebuggerError, SchemaError, UnsupportedFormatError
from ..core.shown import shown
from ._globals import judge_globals
from ._layouts import Swapped
from ._place import Place
from ._strided import Strided
from ._torch import TorchArchive, open_archive
from ._torch_tensors import named_tensors, tensor_of
from ._weights_only import judge_weights_only
from ._zip import looks_like_zip
from .contract import CheckpointFormat, TensorInfo, formats
from .finding import CheckpointFinding

__all__ = ["TorchFormat", "archive_tensors", "shared_storages"]

_NO_TENSORS = {"_rebuild_sparse_tensor", "_rebuild_nested_tensor", "_rebuild_wrapper_subclass",
               "_rebuild_device_tensor_from_numpy", "_rebuild_meta_tensor_no_storage"}  # fmt: skip


def archive_tensors(archive: TorchArchive, prefix: str, unread: list[str]) -> Iterable[TensorInfo]:
    """Yield the tensors of an archive; those that are none of ours go to `unread`."""
    for name, value in named_tensors(archive.root, archive.source_name):
        full = f"{prefix}{name}"
        found = tensor_of(value, archive.source_name)
        if found is None:
            continue
        try:
            yield archive.place(full, found)
        except UnsupportedFormatError as error:
            unread.append(str(error))
    unread.extend(
        f"{archive.source_name}: tensors made by {shown(one.path)} are not judged yet "
        f"(their parts are)"
        for one in archive.globals
        if one.called and one.name in _NO_TENSORS
    )


def shared_storages(tensors: Sequence[TensorInfo]) -> list[CheckpointFinding]:
    """Find tensors that share memory: tied weights, or views of one buffer."""
    groups: dict[str, list[TensorInfo]] = defaultdict(list)
    for info in tensors:
        if info.storage and info.nbytes:
            groups[info.storage].append(info)
    findings = []
    for members in groups.values():
        if len(members) < 2:
            continue
        members.sort(key=lambda i: i.offset)
        names = [shown(i.name) for i in members]
        same = len({(i.offset, i.nbytes) for i in members}) == 1
        what = "are the same memory" if same else "are views of one storage"
        findings.append(
            CheckpointFinding.of(
                "shared_storage", "low",
                f"{len(names)} tensors {what}: {', '.join(names[:4])}"
                f"{', ...' if len(names) > 4 else ''}",
                members[0].name, tensors=names[:100], count=len(names), identical=same,
            )
        )  # fmt: skip
    return findings


def expanded_views(tensors: Sequence[TensorInfo]) -> list[CheckpointFinding]:
    """Find tensors that show one place of their memory several times: a stride of zero."""
    findings = []
    for info in tensors:
        layout = info.layout.inner if isinstance(info.layout, Swapped) else info.layout
        if not isinstance(layout, Strided):
            continue
        repeats = prod(
            n for n, s in zip(layout.shape, layout.strides, strict=True) if n > 1 and not s
        )
        if repeats > 1:
            findings.append(
                CheckpointFinding.of(
                    "expanded_view", "low",
                    f"each value of its memory is shown {repeats} times (a stride of zero)",
                    info.name, repeats=repeats, shape=list(info.shape),
                )
            )  # fmt: skip
    return findings


@formats.register("torch")
class TorchFormat(CheckpointFormat):
    """A zip archive with one pickle and a member for each storage.

    The pickle is read opcode by opcode and never run: state dicts, nested
    dicts, optimizer states and whole modules give their tensors; whatever else
    a loader would import or call is reported. Source: `torch.serialization`.
    """

    name: ClassVar[str] = "torch"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:  # noqa: ARG003 - content decides
        """Return 0.95 for a zip archive with a data.pkl early on."""
        if not looks_like_zip(head):
            return 0.0
        return 0.95 if b"data.pkl" in head else 0.4

    def tensors(self) -> Iterable[TensorInfo]:
        """Return the tensors, named by their path in the object, joined with dots."""
        with self.folder.open(self.path.name) as source:
            archive = open_archive(source, self.path.name)
        self.findings.extend(judge_globals(archive.globals, self.path.name))
        code = sorted(n for n in archive.members if n.startswith(f"{archive.prefix}code/"))
        if not code:  # torch.load does not read those
            self.findings.extend(
                judge_weights_only(archive.globals, archive.opcodes, self.path.name)
            )
        found = list(archive_tensors(archive, "", self.unread))
        self.findings.extend(shared_storages(found))
        self.findings.extend(expanded_views(found))
        if code:
            self.metadata["torchscript"] = True
            self.findings.append(
                CheckpointFinding.of(
                    "pickle_global", "low",
                    f"{shown(self.path.name)} is a TorchScript archive: loading it compiles its "
                    f"{len(code)} code members", members=[shown(n) for n in code[:10]],
                )
            )  # fmt: skip
        return found


_RAW_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_TAR_NAMES = (b"storages\0", b"tensors\0", b"pickle\0", b"sys_info\0")


@formats.register("torch_legacy")
class TorchLegacyFormat(CheckpointFormat):
    """What torch wrote before 1.6, and bare pickles: recognised, and refused with the way out."""

    name: ClassVar[str] = "torch_legacy"

    @classmethod
    def sniff(cls, path: Place, head: bytes) -> float:  # noqa: ARG003 - content decides
        """Return 0.9 for torch's tar and raw forms, 0.5 for another pickle."""
        if head[257:262] == b"ustar" and head[:16].startswith(_TAR_NAMES):
            return 0.9
        if head[:1] == b"\x80" and 1 <= int.from_bytes(head[1:2], "little") <= 5:
            return 0.9 if _RAW_MAGIC in head[:16] else 0.5
        return 0.0

    def tensors(self) -> Iterable[TensorInfo]:
        """Raise `UnsupportedFormatError`."""
        with self.folder.open(self.path.name) as source:
            head = source.read(0, min(source.size, 512), "the first bytes")
        kind = "in the raw form" if _RAW_MAGIC in head[:16] else "as a bare pickle"
        if head[257:262] == b"ustar":
            kind = "in the tar form"
        raise UnsupportedFormatError(
            f"written {kind} of torch before 1.6, whose tensors lie behind pickles that would have "
            f"to be run. In a container without network, torch.load(file, weights_only=True) and "
            f"torch.save it again, or save it as safetensors",
            source=shown(self.path.name),
        )


def read_archive(path_format: CheckpointFormat, file: str) -> TorchArchive | MLSystemsDebuggerError:
    """Return a torch archive in the format's folder, or the error, noted as unread."""
    try:
        with path_format.folder.open(file) as source:
            return open_archive(source, file)
    except (SchemaError, UnsupportedFormatError) as error:
        path_format.unread.append(str(error))
        return error
