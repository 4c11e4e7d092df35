"""The heap: garbage is looked for where there is some, and goes back to the system."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

# That Python's collector waits for; its own 700 are few where TensorFlow and Beam make graphs of
# hundreds of thousands, nearly all of them in use.
_NEW_OBJECTS = 10_000


@contextlib.contextmanager
def permanent() -> Iterator[None]:
    """Never garbage is what is imported in here: not searched meanwhile, nor later.

    TensorFlow and TFX are a million objects, through which Python's collector goes again and again
    while a graph is made: 4 of the 54 seconds that a run takes on 240 photos (two cores). And each
    search stops a server: the one of all that it had in 16,000 requests took half a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
        gc.enable()


def give_back() -> None:
    """Garbage and all that was freed is the system's again.

    glibc keeps most of what lies below anything that is in use: some 250 MB of a ResNet50 that was
    served, and as much of one that was trained. (TensorFlow Serving does so after an unload, too:
    core/simple_loader.h.)
    """
    gc.collect()  # graphs refer to themselves
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim:
        trim(0)
