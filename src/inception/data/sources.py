"""Opening a data set from whatever the user has: folders, archives, CSV files or a named set."""

import difflib
from pathlib import Path

from inception.data.archives import open_archive
from inception.data.dataset import Dataset, Sample, align_labels, build_dataset
from inception.data.download import Progress
from inception.data.folders import discover
from inception.data.named import NAMED_SETS, open_named
from inception.data.options import ReadOptions
from inception.data.stores import FolderStore, Store
from inception.data.table_text import TABLE_SUFFIXES
from inception.data.tables import header_of, refused_table, table_records
from inception.data.webdataset import find_shards, open_shards
from inception.errors import UsageError

__all__ = ["Dataset", "Sample", "align_labels", "open_dataset"]


def open_dataset(
    spec: str | Path,
    *,
    options: ReadOptions | None = None,
    data_root: Path | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
    measuring: bool = False,
) -> Dataset:
    """Open a data set; nothing is decoded yet.

    `spec` is one of

    - a folder, zip or tar of class folders, below `train/`, `val/` (or `valid`, `validation`) and `test/`
      or not; a single folder around all of it is entered;
    - the same holding a `labels.csv` (or `.tsv`), or flat files named `<synset>_<name>.<extension>`;
    - a table (CSV, TSV, list, JSON Lines) with a column of paths, one of labels and perhaps one of splits, or
      with several labels an image (see `tables`); what `docs/reading.md` shows;
    - a folder of tar shards (or one of them) in WebDataset's layout: `inception.data.webdataset`;
    - the name of a set in `NAMED_SETS` (write `./digits` for a folder of that name).

    Where "val" or "test" is missing, see `build_dataset`.

    Args:
        spec: see above.
        options: what the data leaves open.
        data_root: where named sets are kept; default `$INCEPTION_DATA` or `~/.cache/inception/data`.
        val_fraction: share of each class for "val", and for "test" if there is neither.
        seed: of the automatic split.
        progress: called while a named set is downloaded, with the bytes of the file so far and in all.
        measuring: whether a single class will do, the classes to tell apart being a bundle's.

    Raises:
        DownloadError: if a named set has to be downloaded and cannot be.
        UsageError: if `spec` is neither a path nor a named set.
        DataError: if what is there is not a usable data set.
    """
    if str(spec) in NAMED_SETS:
        return open_named(
            str(spec), data_root=data_root, val_fraction=val_fraction, seed=seed, progress=progress
        )
    path = Path(spec).expanduser()
    if not path.exists():
        raise _nothing_there(str(spec))
    if shards := find_shards(path):
        return open_shards(path, shards, val_fraction=val_fraction, seed=seed, measuring=measuring)
    options = options or ReadOptions()
    store: Store
    if path.suffix.lower() in TABLE_SUFFIXES:
        store = FolderStore(path.parent)
        found = table_records(store, path.name, options)
        if found is None:
            raise refused_table(str(path), header_of(store, path.name, options))
    else:
        store = FolderStore(path) if path.is_dir() else open_archive(path)
        found = discover(store, options)
    more = found._asdict() | {"measuring": measuring}
    return build_dataset(path.stem, store=store, val_fraction=val_fraction, seed=seed, **more)


def _nothing_there(spec: str) -> UsageError:
    near = difflib.get_close_matches(spec, NAMED_SETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"named sets are {', '.join(NAMED_SETS)}."
    return UsageError(f"There is no file or folder {spec!r}, and no data set of that name; {hint}")
