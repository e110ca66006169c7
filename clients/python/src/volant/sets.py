"""Recording sets: recordings with labels, for ``volant train`` and ``volant evaluate``."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Label:
    """What somebody says was played. Times are ms from the start of the recording.

    ``quality``: ``clear``, ``clean`` or ``soft`` count; ``ambiguous``, ``cut`` and ``unclear`` are neither a swing nor a false
    alarm; ``window`` says that the whole recording is one example.
    """

    recording: str
    player: str
    start_ms: float
    peak_ms: float
    end_ms: float
    stroke: str
    quality: str = "clear"


def samples_of(frames: pa.Table) -> pa.Table:
    """Frames as rows of a recording file: ``sensor``, ``t_ms``, ``ax ay az`` (m/s²), ``gx gy gz`` (°/s), ``roll pitch yaw`` (°)."""
    factor = frames["acc_to_mps2"]
    columns = {"sensor": frames["sensor"], "t_ms": pc.divide(pc.cast(frames["t_ns"], pa.float64()), 1e6)}
    for axis in "xyz":
        columns[f"a{axis}"] = pc.multiply(frames[f"acc_{axis}"], factor)
    for axis in "xyz":
        columns[f"g{axis}"] = frames[f"gyro_{axis}"]
    for name, axis in (("roll", "x"), ("pitch", "y"), ("yaw", "z")):
        columns[name] = frames[f"angle_{axis}"]
    return pa.table(columns)


def write_set(folder: str | Path, recordings: Mapping[str, pa.Table], labels: Iterable[Label]) -> Path:
    """Writes a recording set: ``samples.parquet`` and ``labels.csv``.

    ``recordings`` are frames by name, as ``Client.frames`` gives them. Every label names one of them.
    """
    labels = list(labels)
    unknown = {label.recording for label in labels} - set(recordings)
    if unknown:
        raise ValueError(f"labels of recordings that are not here: {', '.join(sorted(unknown))}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for name, frames in recordings.items():
        samples = samples_of(frames)
        tables.append(samples.append_column("recording", pa.array([name] * samples.num_rows, pa.string())))
    pq.write_table(pa.concat_tables(tables), folder / "samples.parquet", compression="zstd")
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Label)])
        writer.writeheader()
        writer.writerows(asdict(label) for label in labels)
    return folder


def read_labels(folder: str | Path) -> list[Label]:
    """The labels of a recording set."""
    with (Path(folder) / "labels.csv").open(newline="", encoding="utf-8") as file:
        return [
            Label(
                recording=row["recording"],
                player=row["player"],
                start_ms=float(row["start_ms"]),
                peak_ms=float(row["peak_ms"]),
                end_ms=float(row["end_ms"]),
                stroke=row["stroke"],
                quality=row["quality"],
            )
            for row in csv.DictReader(file)
        ]
