"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["written_whole"]


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty file beside `path` to write; it takes its place once all of it is on disk.

    Where the block raises, or is interrupted, an old file stays as it was and
    nothing half written is left behind.

    Raises
    ------
    OSError
        Where it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "labels.json"
    >>> with written_whole(target) as aside:
    ...     _ = aside.write_text("{}")
    >>> target.read_text()
    '{}'
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    # Made here, so that its mode is what the umask says and nobody's file is taken.
    os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield aside
        _to_disk(aside)
        aside.replace(target)
    except BaseException:  # an interrupt too
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
