"""The heap of a process that holds a model for a while only."""

import ctypes
import gc


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
