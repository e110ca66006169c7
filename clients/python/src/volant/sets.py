"""Recording sets: recordings with labels, for ``volant train`` and ``volant evaluate``."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Label:
    """What somebody says was played. Times are ms from the start of the recording; start and end may be NaN, not known.

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
        for label in labels:
            row = asdict(label)
            writer.writerow({name: "" if isinstance(of, float) and math.isnan(of) else of for name, of in row.items()})
    return folder


#: Labels and swings nearer than this name the same, ns.
SAME_SWING_NS = 250_000_000


def said_labels(said: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[Label]:
    """Rows of ``labels`` as those of a set, with the swings of ``found`` (rows of ``strokes``) that nobody named as ``unclear``."""

    def ms(ns: int | None) -> float:
        return math.nan if ns is None else ns / 1e6

    def line(row: Mapping[str, Any], user: int | None, stroke: str, quality: str) -> Label:
        player = "unknown" if user is None else f"player-{user}"
        times = (ms(row["start_ns"]), ms(row["impact_ns"]), ms(row["end_ns"]))
        return Label(f"session-{row['session_id']}", player, *times, stroke, quality)

    labels = [line(row, row["user_id"], row["stroke"], row["quality"]) for row in said if row["stroke"] != "other"]
    users = {row["session_id"]: row["user_id"] for row in said}
    named: dict[int, list[int]] = {}
    for row in said:
        named.setdefault(row["session_id"], []).append(row["impact_ns"])
    whole = {row["session_id"] for row in said if row["quality"] == "window"}
    for swing in found:
        session = swing["session_id"]
        is_named = any(abs(swing["impact_ns"] - at) <= SAME_SWING_NS for at in named[session])
        if session not in whole and not is_named:
            labels.append(line(swing, users[session], "other", "unclear"))
    return sorted(labels, key=lambda label: (label.recording, label.peak_ms))


def read_labels(folder: str | Path) -> list[Label]:
    """The labels of a recording set."""
    with (Path(folder) / "labels.csv").open(newline="", encoding="utf-8") as file:
        return [
            Label(
                recording=row["recording"],
                player=row["player"],
                start_ms=float(row["start_ms"] or "nan"),
                peak_ms=float(row["peak_ms"]),
                end_ms=float(row["end_ms"] or "nan"),
                stroke=row["stroke"],
                quality=row["quality"],
            )
            for row in csv.DictReader(file)
        ]
