"""The versions in a folder that a model server watches: `<base>/<version>/saved_model.pb`."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
import time
import uuid
from pathlib import Path

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_LAST = 2**63 - 1  # a server reads an int64


def newest_version(base: Path) -> int | None:
    """The version that a server with the default policy (`latest`) serves; None if there is none.

    Links and folders without a saved_model.pb do not count: our server can't load them.
    """
    folders = (base / str(number) for number in _numbers(base))
    loadable = (f for f in folders if (f / "saved_model.pb").is_file() and not f.is_symlink())
    return max((int(folder.name) for folder in loadable), default=None)


def link_in(folder: Path) -> Path | None:
    """A symbolic link in a folder, or the folder itself if it is one; None if there is none.

    Links are not followed in pushed and served folders: else files from elsewhere would be served.
    """
    return next((path for path in (folder, *folder.rglob("*")) if path.is_symlink()), None)


def push(model: Path, base: Path) -> int:
    """Makes a SavedModel the newest version under `base`; returns its version.

    The version is the time in seconds since 1970, as in TFX's own Pusher, or the number after the
    highest one in the folder if that is more. The model is copied to another name and then renamed,
    so a server sees the whole folder or none. A rename to a folder with files fails, so of two
    pushes at the same time, also on two machines, the second one gets the next number. If the
    newest version is the same model, nothing is pushed.

    Args:
        model: folder of the SavedModel.
        base: the servable's folder; it is made if it does not exist.

    Raises:
        ValueError: the model holds a symbolic link.
    """
    if link := link_in(model):
        raise ValueError(f"{link} is a symbolic link: a pushed model holds files only")
    newest = newest_version(base)
    if newest is not None and _same_files(model, base / str(newest)):
        return newest
    base.mkdir(parents=True, exist_ok=True)
    aside = base / f".pushing-{uuid.uuid4().hex}"
    try:
        shutil.copytree(model, aside)
        return _publish(aside, base)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _publish(aside: Path, base: Path) -> int:
    """Renames a whole folder to the next version that no other push has taken."""
    while True:
        version = max(int(time.time()), max(_numbers(base), default=0) + 1)
        try:
            os.rename(aside, base / str(version))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return version


def _numbers(base: Path) -> list[int]:
    """The numbers in the folder, also of what can't be loaded: `latest` means the highest one."""
    names = [entry.name for entry in base.iterdir()] if base.is_dir() else []
    return [int(name) for name in names if _NUMBER.fullmatch(name) and int(name) < _LAST]


def _same_files(left: Path, right: Path) -> bool:
    names = [{p.relative_to(f) for p in f.rglob("*") if p.is_file()} for f in (left, right)]
    return names[0] == names[1] and all(
        filecmp.cmp(left / name, right / name, shallow=False) for name in names[0]
    )
