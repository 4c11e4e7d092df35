"""The folder that a model server watches: `<base>/<version>/saved_model.pb`, by number."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
import uuid
from pathlib import Path


def newest_version(base: Path) -> int | None:
    """The version that a server with the default policy (`latest`) serves; None if there is none.

    Folders without a saved_model.pb do not count: a server can't load them.
    """
    found = [
        int(folder.name)
        for folder in (base.iterdir() if base.is_dir() else ())
        if folder.name.isdecimal() and (folder / "saved_model.pb").is_file()
    ]
    return max(found, default=None)


def push(model: Path, base: Path) -> int:
    """Makes a SavedModel the newest version under `base`; returns its version.

    The version is the time in seconds since 1970, as in TFX's own Pusher, so no number is used
    twice. It is always above the newest version. The model is copied to another name and then
    renamed, so a server sees the whole folder or none. If the newest version is the same model,
    nothing is pushed.

    Args:
        model: folder of the SavedModel.
        base: the servable's folder; it is made if it does not exist.
    """
    newest = newest_version(base)
    if newest is not None and _same_files(model, base / str(newest)):
        return newest
    base.mkdir(parents=True, exist_ok=True)
    version = max(int(time.time()), (newest or 0) + 1)
    aside = base / f".pushing-{uuid.uuid4().hex}"
    try:
        shutil.copytree(model, aside)
        os.rename(aside, base / str(version))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version


def _same_files(left: Path, right: Path) -> bool:
    names = [{p.relative_to(f) for p in f.rglob("*") if p.is_file()} for f in (left, right)]
    return names[0] == names[1] and all(
        filecmp.cmp(left / name, right / name, shallow=False) for name in names[0]
    )
