"""Encoded images in a column of a Parquet file, as data sets on the Hugging Face Hub have them."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from inception.data.stores import check_size, missing_file
from inception.errors import DataError, ImageError, UsageError

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "bytes", "image_bytes")
NAME_COLUMNS = ("path", "file", "filename", "file_name", "__key__")
_KEPT_GROUPS = 2


class ParquetStore:
    """The rows of a Parquet file: bytes of an image file each, or a struct with `bytes` and perhaps `path`.

    A row is named by its number and, where a column of `NAME_COLUMNS` has it, its path: `000012/cat.jpg`.
    Row groups are read whole, the last few are kept.

    Raises UsageError when pyarrow is not installed, DataError when the file is damaged or has no such column.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError as error:
            raise UsageError(
                "Parquet files need pyarrow; install it with: pip install 'inception[embed]'"
            ) from error
        try:
            self._file: Any = parquet.ParquetFile(self._path)
            columns = self._file.schema_arrow.names
            self._column = next((name for name in IMAGE_COLUMNS if name in columns), None)
            if self._column is None:
                raise DataError(
                    f"{self._path} has no column of images ({', '.join(IMAGE_COLUMNS)}): it has "
                    f"{', '.join(columns)[:200]}."
                )
            paths = next((name for name in NAME_COLUMNS if name in columns), None)
            named = self._file.read([paths]).column(0).to_pylist() if paths else []
        except (OSError, arrow.ArrowException) as error:
            raise DataError(
                f"{self._path} is not a complete Parquet file ({error}); copy it again."
            ) from error
        self._names: dict[str, int] = {}
        for row in range(self._file.metadata.num_rows):
            self._names[f"{row:06d}/{named[row]}" if named and named[row] else f"{row:06d}"] = row
        groups = range(self._file.metadata.num_row_groups)
        self._starts = [0]
        for group in groups:
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ParquetStore"], tuple[Path]]:
        return (ParquetStore, (self._path,))

    @property
    def location(self) -> str:
        """The file's path."""
        return str(self._path)

    def names(self) -> list[str]:
        """Every row, in the file's order."""
        return list(self._names)

    def empty_folders(self) -> list[str]:
        """Always empty: there are no folders."""
        return []

    def size(self, name: str) -> int:
        """Bytes of one image's file."""
        return len(self.read(name))

    def signature(self, name: str) -> str:
        """The size."""
        return str(self.size(name))

    def read(self, name: str) -> bytes:
        """The bytes of one row's image file."""
        if name not in self._names:
            raise missing_file(name, self.location)
        row = self._names[name]
        group = next(group for group, start in enumerate(self._starts[1:]) if row < start)
        value = self._group(group, name)[row - self._starts[group]]
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ImageError("empty", f"{name} in {self._path} holds no bytes of an image; replace the row.")
        check_size(name, self.location, len(data))
        return data

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one row's image file."""
        return self.read(name)[:count]

    def _group(self, group: int, name: str) -> list[Any]:
        with self._lock:
            if group not in self._kept:
                try:
                    table = self._file.read_row_group(group, [self._column])
                except Exception as error:  # pyarrow raises many types on damaged pages
                    raise ImageError(
                        "corrupt", f"{name} in {self._path} cannot be read ({error}); copy the file again."
                    ) from error
                self._kept[group] = table.column(0).to_pylist()
                if len(self._kept) > _KEPT_GROUPS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]
