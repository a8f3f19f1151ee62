# SPDX-License-Identifier: Apache-2.0
"""A folder that appears whole or not at all, and the files that travel along with weights."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pennyweight.errors import CheckpointError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WEIGHTS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".gguf",
    ".ggml",
    ".onnx",
    ".onnx_data",
    ".ckpt",
)
WRITTEN = ("config.json", "recipe.yaml")  # config.json is ours; recipe.yaml would be llm-compressor's


def check_absent(out: Path) -> None:
    """Raise CheckpointError when ``out`` exists or cannot be made."""
    if os.path.lexists(out):
        raise CheckpointError(f"{out}: exists already; remove it or choose another output folder")
    if not out.absolute().parent.is_dir():
        raise CheckpointError(
            f"{out}: its parent folder {out.absolute().parent} does not exist; make it first"
        )


@contextmanager
def in_place(out: Path, *, size_bytes: int, like: Path | None) -> Iterator[Path]:
    """Give a hidden sibling of ``out`` to write into; at the end it becomes ``out``, after an error it goes.

    Args:
        out: The folder to make.
        size_bytes: What will be written, at least; refused at once where there is less room.
        like: A folder whose group shall be able to read the files too, if it can read that folder's.
    """
    check_absent(out)
    parent = out.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < size_bytes:
        raise CheckpointError(
            f"{out}: needs {size_bytes} bytes, the disk has {free} free; make room and run again"
        )
    folder = parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir()
        yield folder
        for path in [*folder.rglob("*"), folder]:
            if like is not None:
                _share(path, like)
            sync(path)
        folder.rename(out)
        sync(parent)
    except OSError as error:
        _remove(folder)
        if error.errno in FULL:
            raise CheckpointError(
                f"{out}: the disk is full or a file-size limit was met ({error.strerror}); nothing was kept: "
                f"make room for at least {size_bytes} bytes and run again"
            ) from error
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{out}: cannot be written: {error}") from error
    except BaseException:
        _remove(folder)
        raise


def _remove(folder: Path) -> None:
    """Remove what is half written, though Ctrl-C is pressed again meanwhile."""
    for _ in range(100):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            return
        except BaseException:  # only a signal gets here
            continue


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _share(path: Path, like: Path) -> None:
    """Let the group of ``like`` read ``path`` if it can read ``like``'s config, beyond the umask."""
    model = (like / "config.json").stat()
    if model.st_mode & stat.S_IRGRP:
        with suppress(PermissionError):  # only members of a group may give files to it
            os.chown(path, -1, model.st_gid)
            path.chmod(path.stat().st_mode | stat.S_IRGRP | (stat.S_IXGRP if path.is_dir() else 0))


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what is not a weight from a model's folder: tokenizer, templates, licence, generation config.

    Hidden files stay behind, and so do subfolders that hold weights.
    """
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or path.name in WRITTEN or _is_weight(path):
            continue
        if path.is_dir():
            if not any(_is_weight(inner) for inner in path.rglob("*")):
                shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
        elif path.is_file():
            shutil.copyfile(path, folder / path.name)


def _is_weight(path: Path) -> bool:
    return path.name.endswith(WEIGHTS) or path.name.endswith(".index.json")
