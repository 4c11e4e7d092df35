"""Folders and photos may have any name that the file system takes."""

from __future__ import annotations

import os

from tests.components.photo_example_gen.pictures import noise
from tests.pictures import encoded

NAMES = (
    "a[1].jpg", "b*.jpg", "c?.jpg", "d e.jpg", "{e},f.jpg", "#100%.jpg", "line\nbreak.jpg",
    "'q\".jpg", "é.jpg", f"{'n' * 251}.jpg",
)  # fmt: skip


def test_names_are_no_patterns(make_faces, run):
    folder = f"[a-c]* ?\\{{x}} 100% é/{'long' * 60}"
    output = run(make_faces(
        60,
        [(name, 30) for name in NAMES],
        {name: encoded(noise(100 + i)) for i, name in enumerate(NAMES)},
        name=folder,
    ))  # fmt: skip
    assert output.rejects == []
    names = {
        example["file_name"].decode().removeprefix("final_files/") for example in output.examples()
    }
    assert names >= set(NAMES)


def test_names_that_no_file_can_have_are_rejected(make_faces, run):
    names = ["n" * 256 + ".jpg", "p/" * 2048 + "x.jpg", "nul\0.jpg"]
    output = run(make_faces(60, [(name, 30) for name in names]))
    assert len(output.rejects) == len(names)


def test_a_name_that_is_not_utf8_disturbs_nobody(make_faces, run):
    photos = make_faces(60)
    (photos / "final_files" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded(noise(99)))
    assert run(photos).rejects == []
