"""Where the files of data sets are looked for, and how they are opened."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rolecall.core.errors import DataError

__all__ = ("ENVIRONMENT", "SYSTEM", "find_files", "opened")

ENVIRONMENT = "ROLECALL_DATA"
SYSTEM = Path("/usr/share/datasets")  # where Debian's packages dataset-* put theirs


def find_files(
    name: str,
    files: Sequence[str],
    *,
    data_dir: str | os.PathLike[str] | None,
    folders: Iterable[str],
    advice: str,
) -> dict[str, Path]:
    """Return the path of each of `files`, all from the first place that has them all, gzipped or not.

    Looks in `data_dir` alone where that is given; else in $ROLECALL_DATA and in Debian's directory. In each,
    first in the `folders` and then in the directory itself. Raises `DataError` naming what was missing where.
    """
    places = [root / folder for root in _roots(data_dir) for folder in (*folders, "")]
    missing: dict[Path, list[str]] = {}
    for place in places:
        found = {file: path for file in files if (path := _existing(place / file))}
        if len(found) == len(files):
            return found
        missing[place] = [file for file in files if file not in found]
    raise DataError(f"data set {name!r}", _what_is_missing(missing, files), advice)


@contextmanager
def opened(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """Open a file for reading, unzipped where its name ends in `.gz`; what fails raises `DataError`."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except EOFError as error:
        raise DataError(path, "is truncated: the gzip stream ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(path, f"is not a sound gzip file: {error}") from error
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error


def _roots(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    if data_dir is not None:
        return [Path(data_dir)]
    from_environment = os.environ.get(ENVIRONMENT)
    return [Path(from_environment), SYSTEM] if from_environment else [SYSTEM]


def _existing(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return next((candidate for candidate in (path, zipped) if candidate.is_file()), None)


def _what_is_missing(missing: Mapping[Path, Sequence[str]], files: Sequence[str]) -> str:
    begun = {place: names for place, names in missing.items() if len(names) < len(files)}
    if begun:
        place, names = next(iter(begun.items()))
        return f"{place} lacks {', '.join(names)}"
    return f"found none of {', '.join(files)} in {', '.join(map(str, missing))}"
