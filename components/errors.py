"""The one exception for what a user can put right."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input or the configuration; its text is one line that says what to do."""
