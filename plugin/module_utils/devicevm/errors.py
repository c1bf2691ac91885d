"""What can go wrong, in the user's words: what, where, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass


class DevicevmError(Exception):
    """An error the user can act on.

    `message` says what is wrong, `hint` the next thing to do (often a command to type).
    Front ends print both and exit 1; they never print a traceback for it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


def in_our_words(error: Exception) -> DevicevmError:
    """The error as it is told; one that nobody expected is named by its type, and is the cause of the one told."""
    if isinstance(error, DevicevmError):
        return error
    told = DevicevmError(
        f"unexpected {type(error).__name__}: {error}".rstrip(": "),
        hint="devicevm did not foresee this: please report it",
    )
    told.__cause__ = error
    return told


def all_of(errors: list[DevicevmError]) -> DevicevmError:
    """Several errors as one, each said once."""
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return DevicevmError("; ".join(dict.fromkeys(error.message for error in errors)), hint="; ".join(hints))


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with the user's input; many are reported at once.

    `source`, `line`, `column` (1-based, 0 = unknown) say where in the file,
    `path` where in the document (`spec.devices[0].class`).
    """

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f":{self.line}:{self.column}" if self.line else ""
        where = f"{self.source}{place}: " if self.source else ""
        at = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{at}{self.message}{hint}"


class InvalidManifest(DevicevmError):
    """The manifests cannot be used; `problems` holds every reason, sorted by place."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        count = len(self.problems)
        super().__init__(
            "\n".join(str(problem) for problem in self.problems),
            hint=f"{count} problem{'s' if count != 1 else ''} found; nothing was changed",
        )
