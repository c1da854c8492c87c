"""A pickle read without running it: opcodes in, plain values and inert stand-ins out.

Nothing is imported and nothing called. A global becomes a `Global`, what a
loader would build or call with it an `Instance` that only remembers how. The
few builders of plain containers that files of tensors are made of
(`OrderedDict`, `torch.Size`, ...) give the container. Work and memory are
bounded by a budget that grows with the file.
"""

from __future__ import annotations

from typing import Any

from ._pickle import Machine
from ._standins import Global, Instance, Persistent

__all__ = ["Global", "Instance", "Persistent", "read_pickle"]


def read_pickle(
    data: bytes,
    source: str,
    offset: int,
    budget: int,
    *,
    references: list[Persistent] | None = None,
    opcodes: set[int] | None = None,
    tensors: list[Instance] | None = None,
) -> tuple[Any, list[Global]]:  # fmt: skip
    """Return the object in `data` and every global that it names, in order.

    Parameters
    ----------
    data : bytes
        One pickle, and nothing behind it.
    source, offset
        File and place of `data`, for messages.
    budget : int
        Bytes of memory that the result may take, about.
    references : list, optional
        Gets all that it refers to beside it (persistent ids), as torch's do to storages, whether
        the object holds it or not; without it, it may refer to nothing.

    opcodes : set, optional
        Gets the codes that it uses.
    tensors : list, optional
        Gets all that a maker of tensors is called for, whether the object holds it or not.

    Raises
    ------
    SchemaError
        Where it is cut off, malformed, uses an unknown opcode or too much memory.

    Examples
    --------
    >>> import pickle
    >>> read_pickle(pickle.dumps({"step": 3}), "run.pkl", 0, 10_000)
    ({'step': 3}, [])
    """
    machine = Machine(data, source, offset, budget, references=references, tensors=tensors)
    found = machine.run()
    if opcodes is not None:
        opcodes.update(code for code in range(256) if machine.used[code])
    return found
