"""The exception for errors that the user can fix."""


class TraceBenchError(Exception):
    """A user error; its message says in one sentence what is wrong, where, and how to fix it."""


class Unavailable(TraceBenchError):
    """Something cannot be used on this machine, such as a network without its weights; says how to get it."""


#: What parsing a damaged or hostile file raises besides OSError: wrong syntax, too deep, too large.
UNREADABLE = (ValueError, RecursionError, MemoryError, OverflowError)
