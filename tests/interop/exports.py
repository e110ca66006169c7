#!/usr/bin/env python3
"""Exports are what the readers of their formats read: MCAP, MATLAB, CSV, Arrow, JSON lines, Parquet hold the same frames.

Usage: exports.py VOLANT_BINARY
"""

import csv
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import scipy.io
from mcap.reader import make_reader
from service import running


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with running(sys.argv[1], folder / "data") as service:
            service.play(1, 30)
            service.wait_for_results(1)
            out = {}
            for form in ("parquet", "csv", "arrow", "jsonl", "mcap", "mat"):
                out[form] = folder / f"session.{form}"
                service.run("export", "--url", service.url, "--session", "1", "--format", form, "--out", str(out[form]))
            strokes = service.sql("SELECT * FROM strokes ORDER BY stroke_index")
            started_at_us = service.sql("SELECT started_at_us FROM sessions")[0]["started_at_us"]
        compare(out, strokes, started_at_us)
    print("six formats hold the same session")


def compare(out: dict[str, Path], strokes: list[dict], started_at_us: int) -> None:
    table = pq.read_table(out["parquet"])
    assert table.num_rows > 5000 and strokes, "there is a session to compare"
    assert "°/s" in table.schema.field("gyro_x").metadata[b"comment"].decode()

    with pa.ipc.open_stream(out["arrow"]) as reader:
        arrow = reader.read_all()
    assert arrow.schema.names == table.schema.names
    assert arrow.equals(table.cast(arrow.schema)), "Arrow is not Parquet"

    rows = table.to_pylist()
    with out["jsonl"].open() as lines:
        for told, line in zip(rows, lines, strict=True):
            found = json.loads(line)
            assert set(found) == set(told)
            for name, value in told.items():
                if isinstance(value, float):
                    assert np.float32(found[name]) == np.float32(value), (name, found[name], value)
                elif name != "date":
                    assert found[name] == value, (name, found[name], value)
    with out["csv"].open(newline="") as lines:
        for told, found in zip(rows, csv.DictReader(lines), strict=True):
            for name in ("gyro_x", "acc_z"):
                assert (found[name] == "") == (told[name] is None)
                assert told[name] is None or np.float32(found[name]) == np.float32(told[name])
            assert int(found["seq"]) == told["seq"] and found["sensor"] == told["sensor"]
    print(f"  Parquet, Arrow, JSON lines, CSV: {len(rows)} frames")

    by_seq = {row["seq"]: row for row in rows}
    seen, seen_strokes, last = 0, 0, 0
    with out["mcap"].open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics.message_count == len(rows) + len(strokes)
        for schema, channel, message in reader.iter_messages():
            body = json.loads(message.data)
            assert message.log_time >= last, "messages are in the order of time"
            last = message.log_time
            if channel.topic == "/strokes":
                assert body["stroke"] == strokes[seen_strokes]["stroke"]
                assert message.log_time == started_at_us * 1000 + body["impact_ns"]
                seen_strokes += 1
                continue
            told = by_seq[body["seq"]]
            assert schema.name == "volant.Imu" and channel.topic == f"/imu/{told['sensor']}"
            assert message.log_time == started_at_us * 1000 + told["t_ns"] == started_at_us * 1000 + body["t_ns"]
            for group, column in (("acc", "acc"), ("gyro_dps", "gyro"), ("angle_deg", "angle")):
                for axis in "xyz":
                    value, wanted = body[group][axis], told[f"{column}_{axis}"]
                    assert (value is None) == (wanted is None)
                    assert value is None or np.float32(value) == np.float32(wanted)
            for name in ("device_time_raw", "received_at_us", "clock", "flags", "sensor_id"):
                assert body[name] == told[name], name
            seen += 1
        assert [metadata.metadata["session_id"] for metadata in reader.iter_metadata()] == ["1"]
    assert (seen, seen_strokes) == (len(rows), len(strokes))
    print(f"  MCAP: {seen} frames, {seen_strokes} strokes")

    mat = scipy.io.loadmat(out["mat"])
    total = 0
    for sensor in ("waist", "shoulder", "wrist", "racket"):
        of_sensor = [row for row in rows if row["sensor"] == sensor]
        total += len(of_sensor)
        assert mat[f"{sensor}_t_ns"].ravel().tolist() == [row["t_ns"] for row in of_sensor]
        assert mat[f"{sensor}_seq"].ravel().tolist() == [row["seq"] for row in of_sensor]
        for variable, column in (("acc", "acc"), ("gyro_dps", "gyro"), ("angle_deg", "angle")):
            wanted = np.array(
                [[math.nan if row[f"{column}_{axis}"] is None else row[f"{column}_{axis}"] for axis in "xyz"] for row in of_sensor],
                dtype=np.float32,
            )
            assert np.array_equal(mat[f"{sensor}_{variable}"], wanted, equal_nan=True), (sensor, variable)
    assert total == len(rows)
    assert [name.strip() for name in mat["stroke_name"]] == [stroke["stroke"] for stroke in strokes]
    assert mat["stroke_impact_ns"].ravel().tolist() == [stroke["impact_ns"] for stroke in strokes]
    assert mat["session_id"].item() == 1 and mat["started_at_us"].item() == started_at_us
    print(f"  MATLAB: {total} frames, {len(strokes)} strokes")


if __name__ == "__main__":
    main()
