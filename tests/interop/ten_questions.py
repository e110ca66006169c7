#!/usr/bin/env python3
"""The same ten questions, asked of the folder by four engines and of the service by its own SQL, get the same answers.

Starts a service, records sessions of several devices, and asks while it runs: the engines read the Parquet files as they
are, with nothing but the documented layout.

Usage: ten_questions.py VOLANT_BINARY
"""

import math
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import datafusion
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from service import running

TABLES = ("frames", "strokes", "results")

# SQL that every engine here understands, with rows in a total order.
QUESTIONS = {
    "frames by session and sensor": """
        SELECT session_id, sensor, count(*) AS n FROM frames GROUP BY session_id, sensor ORDER BY session_id, sensor""",
    "fastest rotation by sensor, °/s": """
        SELECT sensor, max(sqrt(CAST(gyro_x AS DOUBLE) * gyro_x + CAST(gyro_y AS DOUBLE) * gyro_y
        + CAST(gyro_z AS DOUBLE) * gyro_z)) AS fastest FROM frames GROUP BY sensor ORDER BY sensor""",
    "strokes by class": """
        SELECT stroke, count(*) AS n FROM strokes GROUP BY stroke ORDER BY stroke""",
    "mean peak rotation by class, °/s": """
        SELECT stroke, avg(peak_gyro_dps) AS mean FROM strokes GROUP BY stroke ORDER BY stroke""",
    "frames by day": """
        SELECT CAST(date AS VARCHAR) AS day, count(*) AS n FROM frames GROUP BY date ORDER BY day""",
    "frames without angular velocity by sensor": """
        SELECT sensor, count(*) - count(gyro_x) AS missing FROM frames GROUP BY sensor ORDER BY sensor""",
    "racket frames within 100 ms of an impact, by session": """
        SELECT k.session_id, count(*) AS n FROM strokes k JOIN frames f ON f.session_id = k.session_id
        WHERE f.sensor = 'racket' AND f.t_ns >= k.impact_ns - 100000000 AND f.t_ns <= k.impact_ns + 100000000
        GROUP BY k.session_id ORDER BY k.session_id""",
    "length of each session, ns": """
        SELECT session_id, max(t_ns) - min(t_ns) AS span FROM frames GROUP BY session_id ORDER BY session_id""",
    "swings by result and by strokes": """
        SELECT r.session_id, r.stroke_count, count(k.stroke_index) AS n FROM results r LEFT JOIN strokes k
        ON k.session_id = r.session_id GROUP BY r.session_id, r.stroke_count ORDER BY r.session_id""",
    "fastest racket head by device, m/s": """
        SELECT device_code, max(racket_head_speed_mps) AS fastest FROM strokes GROUP BY device_code
        ORDER BY device_code""",
}


def by_arrow(data: Path) -> dict[str, Callable[[], list[tuple]]]:
    """The questions by the compute functions of pyarrow, which has no SQL."""
    table = {name: ds.dataset(data / name, partitioning="hive").to_table() for name in TABLES}
    frames, strokes, results = table["frames"], table["strokes"], table["results"]

    def grouped(of: pa.Table, keys: list[str], *aggregations: tuple) -> list[tuple]:
        made = of.group_by(keys).aggregate(list(aggregations)).sort_by([(key, "ascending") for key in keys])
        columns = [*keys, *(name for name in made.column_names if name not in keys)]
        return list(zip(*(made[name].to_pylist() for name in columns), strict=True))

    def rotation() -> pa.Table:
        axes = [pc.cast(frames[axis], pa.float64()) for axis in ("gyro_x", "gyro_y", "gyro_z")]
        squares = [pc.multiply(axis, axis) for axis in axes]
        return frames.append_column("rotation", pc.sqrt(pc.add(pc.add(squares[0], squares[1]), squares[2])))

    def near_impacts() -> list[tuple]:
        racket = frames.filter(pc.field("sensor") == "racket").select(["session_id", "t_ns"])
        impacts = strokes.select(["session_id", "impact_ns"])
        pairs = impacts.join(racket, keys="session_id", join_type="inner")
        distance = pc.abs(pc.subtract(pairs["t_ns"], pairs["impact_ns"]))
        near = pairs.filter(pc.less_equal(distance, 100_000_000))
        return grouped(near, ["session_id"], ("t_ns", "count"))

    def spans() -> list[tuple]:
        ends = grouped(frames, ["session_id"], ("t_ns", "min"), ("t_ns", "max"))
        return [(session, latest - first) for session, first, latest in ends]

    def swings() -> list[tuple]:
        counts = dict(grouped(strokes, ["session_id"], ("stroke_index", "count")))
        rows = results.sort_by("session_id")
        pairs = zip(rows["session_id"].to_pylist(), rows["stroke_count"].to_pylist(), strict=True)
        return [(session, told, counts.get(session, 0)) for session, told in pairs]

    def missing() -> list[tuple]:
        return [
            (sensor, everything - present)
            for sensor, everything, present in grouped(
                frames, ["sensor"], ("seq", "count"), ("gyro_x", "count")
            )
        ]

    def days() -> list[tuple]:
        return [(str(day), n) for day, n in grouped(frames, ["date"], ("seq", "count"))]

    answers = [
        lambda: grouped(frames, ["session_id", "sensor"], ("seq", "count")),
        lambda: grouped(rotation(), ["sensor"], ("rotation", "max")),
        lambda: grouped(strokes, ["stroke"], ("stroke_index", "count")),
        lambda: grouped(strokes, ["stroke"], ("peak_gyro_dps", "mean")),
        days,
        missing,
        near_impacts,
        spans,
        swings,
        lambda: grouped(strokes, ["device_code"], ("racket_head_speed_mps", "max")),
    ]
    return dict(zip(QUESTIONS, answers, strict=True))


def by_duckdb(data: Path) -> Callable[[str], list[tuple]]:
    connection = duckdb.connect()
    for name in TABLES:
        connection.execute(
            f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{data}/{name}/*/*.parquet', hive_partitioning = true)"
        )
    return lambda statement: connection.execute(statement).fetchall()


def by_polars(data: Path) -> Callable[[str], list[tuple]]:
    context = pl.SQLContext(
        {name: pl.scan_parquet(data / name / "*" / "*.parquet", hive_partitioning=True) for name in TABLES}
    )
    return lambda statement: context.execute(statement, eager=True).rows()


def by_datafusion(data: Path) -> Callable[[str], list[tuple]]:
    context = datafusion.SessionContext()
    for name in TABLES:
        context.register_parquet(name, str(data / name), table_partition_cols=[("date", pa.date32())])
    return lambda statement: rows_of(context.sql(statement).to_arrow_table())


def rows_of(table: pa.Table) -> list[tuple]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def same(one: Iterable[tuple], other: Iterable[tuple]) -> bool:
    def equal(a, b) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=1e-9)
        return a == b

    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        len(a) == len(b) and all(map(equal, a, b)) for a, b in zip(one, other, strict=True)
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running(sys.argv[1], data) as service:
            service.play(3, 40)
            service.wait_for_results(3)
            arrow, duck, polar, fusion = by_arrow(data), by_duckdb(data), by_polars(data), by_datafusion(data)
            for question, statement in QUESTIONS.items():
                ours = [tuple(row.values()) for row in service.sql(statement)]
                assert ours, f"{question}: no rows"
                for engine, theirs in {
                    "pyarrow": arrow[question](),
                    "DuckDB": duck(statement),
                    "Polars": polar(statement),
                    "DataFusion": fusion(statement),
                }.items():
                    if not same(ours, theirs):
                        sys.exit(f"FAILED: {question}\n  volant: {ours}\n  {engine}: {theirs}")
                print(f"  {question}: {len(ours)} rows")
    print(f"{len(QUESTIONS)} questions, five engines, equal answers")


if __name__ == "__main__":
    main()
