#!/usr/bin/env python3
"""Other engines read what Volant stores.

Plays the demo once with the given binary into a temporary folder, then reads the Parquet below its data folder with
pyarrow and DuckDB and compares counts and sums with what `volant sql` says of the same folder. Also holds the files to
the public layout: Hive folders, lower-case names, Spark-safe types, a comment with the unit on every column.

Usage: read_parquet.py VOLANT_BINARY
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset as ds
import pyarrow.parquet as pq

TABLES = ("frames", "strokes", "results")
SPARK_SAFE = {pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string()}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check(what: str, *values) -> None:
    first = values[0]
    same = all(
        math.isclose(value, first, rel_tol=1e-6) if isinstance(first, float) else value == first for value in values
    )
    if not same:
        sys.exit(f"FAILED: {what}: {values}")
    print(f"  {what}: {first}")


def duck(statement: str):
    """The single value of a statement."""
    return duckdb.connect().execute(statement).fetchall()[0][0]


def main() -> None:
    volant = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        run(volant, "demo", "--once", "--out", folder)
        data = Path(folder) / "data"

        def volant_sql(statement: str) -> dict:
            return json.loads(run(volant, "sql", "--data-dir", str(data), "--format", "json", statement))[0]

        for table in TABLES:
            files = sorted((data / table).glob("date=*/*.parquet"))
            assert files, f"no file of {table}"
            print(f"{table}: {len(files)} file(s), {sum(file.stat().st_size for file in files)} bytes")

            for file in files:
                schema = pq.read_schema(file)
                assert schema.metadata[b"volant.table"].decode() == table, file
                assert schema.metadata[b"volant.version"], file
                for field in schema:
                    assert field.type in SPARK_SAFE, f"{table}.{field.name} is {field.type}"
                    assert field.name == field.name.lower(), field.name
                    assert field.metadata and field.metadata.get(b"comment"), f"{table}.{field.name} has no comment"

            arrow = ds.dataset(data / table, partitioning="hive").to_table()
            glob = f"{data}/{table}/*/*.parquet"
            check(
                f"rows of {table}",
                arrow.num_rows,
                duck(f"SELECT count(*) FROM read_parquet('{glob}', hive_partitioning = true)"),
                volant_sql(f"SELECT count(*) AS n FROM {table}")["n"],
            )

        frames = ds.dataset(data / "frames", partitioning="hive").to_table()
        check(
            "sum of gyro_z",
            duck(f"SELECT sum(gyro_z::DOUBLE) FROM '{data}/frames/*/*.parquet'"),
            pa.compute.sum(frames["gyro_z"].cast(pa.float64())).as_py(),
            volant_sql("SELECT sum(CAST(gyro_z AS DOUBLE)) AS s FROM frames")["s"],
        )
        times = duck(
            f"SELECT count(*) FROM (SELECT t_ns < lag(t_ns) OVER (PARTITION BY sensor ORDER BY file_row_number) AS back "
            f"FROM read_parquet('{data}/frames/*/*.parquet', file_row_number = true)) WHERE back"
        )
        check("frames out of time order within a sensor", times, 0)
        strokes = duck(
            f"SELECT count(*) FROM '{data}/strokes/*/*.parquet' WHERE start_ns <= impact_ns AND impact_ns <= end_ns"
        )
        check("strokes with start before impact before end", strokes, volant_sql("SELECT count(*) AS n FROM strokes")["n"])
        assert strokes > 0, "the demo recording has strokes"
    print("pyarrow, DuckDB and volant sql agree")


if __name__ == "__main__":
    main()
