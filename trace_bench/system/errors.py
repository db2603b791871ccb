"""The one exception that means "the user can mend this"."""


class TraceBenchError(Exception):
    """A mistake in what was asked for; its message says what, where and how to mend it in one sentence."""
