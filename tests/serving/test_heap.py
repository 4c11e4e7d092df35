"""What is imported once and for all is no matter for Python's collector."""

from __future__ import annotations

import gc

import pytest

from serving import heap


def test_what_is_imported_is_not_searched_for_garbage() -> None:
    thresholds = gc.get_threshold()
    try:
        with pytest.raises(RuntimeError), heap.permanent():
            assert not gc.isenabled()
            imported = [object()]
            raise RuntimeError
        assert gc.isenabled()
        assert not any(kept is imported for kept in gc.get_objects())
        assert gc.get_threshold()[0] > thresholds[0]
        later = [object()]
        assert any(kept is later for kept in gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
