"""Exceptions with messages for people. Refused input has exit code 2, a failed job has exit code 1.

LoomError
├── Refused                 the input cannot be accepted; nothing was changed (exit 2)
│   ├── UnknownName         a name that is in no table; the nearest ones are offered
│   ├── NotFound            a reference that names nothing
│   ├── Ambiguous           a reference that names several things; they are listed
│   ├── BadFile             a file that is not what it should be: `code` is a short word with dashes
│   ├── FamilyMismatch      an adapter, base or setting of another family
│   ├── IndexDamaged        the index cannot be read; `loraloom registry rebuild` restores its last backup
│   └── Faults              several refusals in one
└── JobFailed               accepted, begun, and not finished (exit 1)
    └── WriteFailed         a file that the disk did not take: full, read-only, broken
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from registry.printable import one_line

T = TypeVar("T")


class LoomError(Exception):
    """An error with a message for a person: what was given, what was expected, what to do."""

    exit_code = 1


class Refused(LoomError):
    """The input cannot be accepted; nothing was changed."""

    exit_code = 2


class UnknownName(Refused, LookupError):
    """A name that is in no table; the message offers the nearest ones."""

    def __str__(self) -> str:  # LookupError's subclasses may quote their argument
        return str(self.args[0]) if self.args else ""


class NotFound(Refused):
    """A reference that names nothing."""


class Ambiguous(Refused):
    """A reference that names several things; the message lists them."""


class BadFile(Refused):
    """A file that is not what it should be."""

    def __init__(self, path: Path | str, code: str, message: str) -> None:
        super().__init__(f"{one_line(path)}: {message}")
        self.path = Path(path)
        self.code = code
        self.message = message


@contextmanager
def understood(path: Path | str, code: str = "unknown-format", advice: str = "Is it damaged? Copy it again.") -> Iterator[None]:
    """Whatever a reader raises for what is in a file, of ours or of a library, becomes BadFile.

    Errors that are none of the file's pass: our own, the system's, too little memory.
    """
    try:
        yield
    except (LoomError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadFile(path, code, f"could not be understood ({type(error).__name__}: {reason[:300]}). {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or, in torch's words, of a device."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error)


class FamilyMismatch(Refused):
    """A model of one family where another is needed."""


class IndexDamaged(Refused):
    """The index file is damaged; `reason` is what was found, the message names the command that restores it."""

    def __init__(self, path: Path, reason: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


class Faults(Refused):
    """Several refusals in one, in the order they were found."""

    def __init__(self, title: str, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        nested = (fault.replace("\n", "\n    ") for fault in self.faults)
        super().__init__("\n".join([title, *(f"  - {fault}" for fault in nested)]))


def gathered(faults: list[str], find: Callable[[], T]) -> T | None:
    """The result of `find`; a refusal is added to the faults and gives None."""
    try:
        return find()
    except Faults as error:
        faults += error.faults
    except LoomError as error:
        faults.append(str(error))
    return None


class JobFailed(LoomError):
    """A job that was accepted and could not be finished; what it had done is kept."""


class WriteFailed(JobFailed, OSError):
    """A file that could not be written. Also an OSError, with its errno: a full disk is handled in the same way everywhere."""

    def __init__(self, message: str, *, reason: OSError, needed: int | None = None, written: int = 0) -> None:
        super().__init__(message)
        self.errno = reason.errno
        self.reason = reason
        self.needed = needed  # bytes, where that was known before
        self.written = written  # bytes that had been written

    def __str__(self) -> str:
        return str(self.args[0])
