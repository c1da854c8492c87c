"""The public API is frozen: a change shows as a difference of `public_api.txt`.

python tests/test_public_api.py    writes the file anew, after a change on purpose
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import ml_systems_debugger
from ml_systems_debugger import core, kernels

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def signature(thing: object) -> str:
    try:
        text = str(inspect.signature(thing))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    # Reprs of defaults and of types differ between versions of Python and NumPy.
    return re.sub(r" at 0x[0-9a-f]+|<factory>|numpy\.\w+(\.\w+)*", "...", text)


def described(prefix: str, thing: object) -> Iterator[str]:
    if inspect.isclass(thing) and issubclass(thing, enum.Enum):
        for member in thing:
            yield f"{prefix}.{member.name} = {member.value!r}"
    elif inspect.isclass(thing):
        fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
        yield f"{prefix}: class with fields ({', '.join(f.name for f in fields)})"
        for name in sorted(vars(thing)):
            member = inspect.getattr_static(thing, name)
            if name.startswith("_") or name in {f.name for f in fields}:
                continue
            called = getattr(member, "__func__", member)
            if inspect.isfunction(called):
                names = ", ".join(inspect.signature(called).parameters)
                yield f"{prefix}.{name}({names})"
            elif isinstance(member, property):
                yield f"{prefix}.{name}: property"
    elif callable(thing):
        yield f"{prefix}{signature(thing)}"
    else:
        yield f"{prefix}: {type(thing).__name__}"


def current() -> str:
    lines = []
    for module in (ml_systems_debugger, core, kernels):
        for name in sorted(module.__all__):
            lines += described(f"{module.__name__}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def test_the_public_api_is_the_frozen_one() -> None:
    frozen = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    now = current().splitlines()
    gone = [line for line in frozen if line not in now]
    new = [line for line in now if line not in frozen]
    assert (gone, new) == ([], []), f"if on purpose: python {Path(__file__).name} writes it anew"


if __name__ == "__main__":
    SNAPSHOT.write_text(current(), encoding="utf-8")
