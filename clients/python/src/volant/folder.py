"""A data folder without its service: the stored Parquet files, read as they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

TABLES = ("frames", "strokes", "results")


class Folder:
    """The stored tables of a data folder, an export or an unpacked archive.

    What a running service has not sealed yet is in no file, and so not in here: ask the service for that.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not any((self.path / table).is_dir() for table in TABLES):
            raise FileNotFoundError(f"{self.path} holds none of {', '.join(TABLES)}")

    def dataset(self, table: str) -> ds.Dataset:
        """One of ``frames``, ``strokes``, ``results``, for filters and projections that reach the files."""
        if table not in TABLES:
            raise ValueError(f"no table {table!r}; there are {', '.join(TABLES)}")
        # The partition column is a date in every other engine too.
        date = ds.partitioning(pa.schema([("date", pa.date32())]), flavor="hive")
        return ds.dataset(self.path / table, format="parquet", partitioning=date, exclude_invalid_files=False)

    def frames(self, session: int, sensors: Iterable[str] | None = None) -> pa.Table:
        """Frames of a session as stored, sorted by sensor and time (``t_ns``, ns since session start)."""
        chosen = ds.field("session_id") == session
        if sensors is not None:
            chosen = chosen & ds.field("sensor").isin(list(sensors))
        return self.dataset("frames").to_table(filter=chosen).sort_by([("sensor", "ascending"), ("t_ns", "ascending")])

    def strokes(self, session: int | None = None) -> pa.Table:
        """Swings that were found, of one session or of all."""
        chosen = None if session is None else ds.field("session_id") == session
        order = [("session_id", "ascending"), ("stroke_index", "ascending")]
        return self.dataset("strokes").to_table(filter=chosen).sort_by(order)

    def results(self) -> pa.Table:
        """One row a session: its published analysis."""
        return self.dataset("results").to_table().sort_by([("session_id", "ascending")])


def open(path: str | Path) -> Folder:  # noqa: A001 - it is volant.open, as gzip.open is
    """Opens a data folder for reading."""
    return Folder(path)
