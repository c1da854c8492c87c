"""Names from files, made safe to show."""

from __future__ import annotations

__all__ = ["shown"]

MAX_SHOWN = 200


def shown(name: object, limit: int = MAX_SHOWN) -> str:
    r"""Return a name from a file with control characters escaped, shortened.

    Terminal escapes, newlines, bidirectional overrides and lone surrogates of
    a hostile file never reach a terminal or a CI log.

    Examples
    --------
    >>> shown("layer\x1b[2J.weight")
    'layer\\x1b[2J.weight'
    """
    text = name if isinstance(name, str) else repr(name)
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
