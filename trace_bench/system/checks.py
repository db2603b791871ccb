"""A check: one thing that must hold of a class, with a name, and what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Subject = TypeVar("Subject")


class CheckFailedError(Exception):
    """What does not hold, in a few words."""


@dataclass(frozen=True)
class CheckResult:
    """How one check ended."""

    name: str
    ok: bool
    reason: str  # what was tried if it holds, else what is wrong

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'FAIL':<6}{self.name:<44}{self.reason}"


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """Calls `find`, which returns what it tried, or raises CheckFailedError with what is wrong."""

    name: str
    find: Callable[[Subject], str]

    def __call__(self, subject: Subject) -> CheckResult:
        """Run the check; whatever the checked class raises is a failure of the check."""
        try:
            return CheckResult(self.name, True, self.find(subject))
        except CheckFailedError as failed:
            return CheckResult(self.name, False, str(failed))
        except Exception as error:  # noqa: BLE001  a user's class may raise anything
            text = (str(error).strip().splitlines() or [""])[0]
            return CheckResult(self.name, False, f"{type(error).__name__}: {text}")


def require(holds: object, otherwise: str) -> None:
    """Raise CheckFailedError(otherwise) unless `holds`."""
    if not holds:
        raise CheckFailedError(otherwise)
