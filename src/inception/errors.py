"""Errors meant for people: one sentence saying what is wrong, where, and what to do."""

import re
from typing import Literal

# C0 and C1 control characters, line separators, and what turns the direction of what follows.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

ImageErrorKind = Literal["empty", "format", "truncated", "corrupt", "too_large"]


class InceptionError(Exception):
    """Base of every error this package raises on purpose; the command line exits with 1."""

    exit_code = 1


class UsageError(InceptionError):
    """The request itself is wrong (an unknown name, an impossible value); exits with 2."""

    exit_code = 2


class DataError(InceptionError):
    """A data set cannot be used as it is."""


class ImageError(DataError):
    """One image cannot be decoded.

    Attributes:
        kind: `empty`, `format` (not an allowed format), `truncated`, `corrupt` or `too_large`.
    """

    def __init__(self, kind: ImageErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ImageErrorKind = kind

    def __reduce__(self) -> tuple[type["ImageError"], tuple[ImageErrorKind, str]]:
        # Two-argument exceptions must say how to travel back from a worker process.
        return (type(self), (self.kind, str(self)))


class WriteError(InceptionError, OSError):
    """A file or folder cannot be written (full disk, no permission, …); what it held before is intact.

    Attributes:
        path: what was to be written; `errno` and `strerror` are the system's.
    """

    def __init__(self, path: object, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.path = str(path)

    def __str__(self) -> str:
        return (
            f"cannot write {self.path}: {self.strerror}; what was there before is intact: "
            "make room or choose another place, then start again"
        )


class UnsupportedLayerError(InceptionError):
    """The network has a layer that an engine, or a form to export to, does not have."""


class WeightsError(InceptionError):
    """A weights file does not fit the network it was offered to."""


class BundleError(InceptionError):
    """A bundle is missing, damaged, or written by a newer version."""


class DownloadError(InceptionError):
    """A download failed, was incomplete, or did not match its checksum."""


class TrainingError(InceptionError):
    """Training cannot go on (for example the loss is no longer finite)."""


def first_line(error: BaseException) -> str:
    """What a library's error says, without the lines for developers that may follow."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def printable(text: str, keep: str = "") -> str:
    r"""The text with escapes (`\x1b`, `\n`) for what would move the cursor, colour or reorder a terminal.

    Names of files and labels may hold such characters. Those of `keep` stay.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
