"""Atomic writing: a killed process leaves either the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gliofed.errors import CheckpointError


def write_bytes(path: Path, data: bytes, private: bool = False) -> None:
    """Replace `path` by `data` in one step; the bytes are on the disk when this returns.

    private: for the owner alone (mode 0600) from the first byte on. Raises OSError with the path
    in it; `path` is then as it was.
    """
    with replacing(path, private) as part:
        part.write_bytes(data)


@contextmanager
def replacing(path: Path, private: bool = False, lasting: bool = True) -> Iterator[Path]:
    """A temporary file next to `path`, which replaces `path` at the end of the block.

    lasting: whether the file is flushed to the disk first. Without it, a loss of power may destroy
    it, and for a moment there is neither the old file nor the new one. There may be one writer at
    a time; the temporary file of a killed one is overwritten. If the block or the disk fails,
    `path` is unchanged, and an OSError has its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        if private:
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
        if lasting:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            path.unlink(missing_ok=True)  # replacing a file makes ext4 wait for the disk
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def keep(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` and flush it to the disk; not atomic."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def keep_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, UTF-8."""
    write_bytes(path, text.encode())


def write_private(path: Path, text: str) -> None:
    """As `write_text`, for the owner alone (mode 0600) from the first byte on."""
    write_bytes(path, text.encode(), private=True)


@contextmanager
def private_files() -> Iterator[None]:
    """New files and folders are for the owner alone (0600, 0700), those of processes started in the
    block too. It holds for the whole process."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go of it even where a process is killed.

    Raises CheckpointError where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise CheckpointError(
            f"{folder}: another gliofed process is working there; wait for it, or choose another "
            "folder"
        ) from None
