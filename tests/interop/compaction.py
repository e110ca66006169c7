#!/usr/bin/env python3
"""Compaction under the eyes of other engines, and killed half-way.

Records sessions with a service, then packs and unpacks its folder again and again while DuckDB and pyarrow count the same
tables without pause, and while the service writes a further session into the day. Every second run is killed at a random
instant. A count may fail because a file went under the engine; it must never be another number. In the end nothing is
lost, and unpacked every file is what it was, to the byte.

Usage: compaction.py VOLANT_BINARY
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
from service import running

SESSIONS = 8
RUNS = 40
TABLES = ("frames", "strokes", "results")


def sums(data: Path) -> dict[str, str]:
    files = [file for table in TABLES for file in sorted((data / table).glob("date=*/*.parquet"))]
    return {str(file.relative_to(data)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Watcher(threading.Thread):
    """Counts a table with both engines until it is stopped."""

    def __init__(self, data: Path, rows: dict[str, int]):
        super().__init__(daemon=True)
        self.data, self.rows = data, rows
        self.ends = threading.Event()
        self.counts, self.failed, self.wrong = 0, 0, []

    def run(self) -> None:
        duck = duckdb.connect()
        while not self.ends.is_set():
            for table, rows in self.rows.items():
                for engine, count in (("duckdb", self.by_duckdb), ("pyarrow", self.by_pyarrow)):
                    try:
                        found = count(duck, table)
                    except (duckdb.IOException, FileNotFoundError):
                        self.failed += 1
                        continue
                    self.counts += 1
                    if found != rows:
                        self.wrong.append((engine, table, found, rows))

    def by_duckdb(self, duck: duckdb.DuckDBPyConnection, table: str) -> int:
        where = f"'{self.data}/{table}/date=*/*.parquet', hive_partitioning = true"
        return duck.execute(f"SELECT count(session_id) FROM read_parquet({where}) WHERE session_id <= {SESSIONS}").fetchone()[0]

    def by_pyarrow(self, _: duckdb.DuckDBPyConnection, table: str) -> int:
        return ds.dataset(self.data / table, format="parquet", partitioning="hive").count_rows(
            filter=ds.field("session_id") <= SESSIONS
        )


def main() -> None:
    volant = sys.argv[1]
    chance = random.Random(20261126)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running(volant, data, VOLANT_SESSIONS__LATE_GRACE_S="0") as service:
            service.play(SESSIONS, 20)
            service.wait_for_results(SESSIONS)
            before = sums(data)
            rows = {table: service.sql(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in TABLES}
            watcher = Watcher(data, rows)
            watcher.start()
            later = threading.Thread(target=service.play, args=(1, 20))
            later.start()
            killed = packed = 0
            for run in range(RUNS):
                direction = ["--undo"] if run % 2 else ["--after-days", "0"]
                process = subprocess.Popen(
                    [volant, "compact", "--data-dir", str(data), "--json", *direction],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                if chance.random() < 0.5:
                    time.sleep(chance.uniform(0, 0.4))
                    process.kill()
                out, err = process.communicate(timeout=120)
                if process.returncode == -9:
                    killed += 1
                elif process.returncode != 0:
                    sys.exit(f"FAILED: compact {direction}: {err}")
                elif not run % 2:
                    packed += json.loads(out)["tables"]["frames"]["packs"]
                # The service sees the same all the while.
                for table in TABLES:
                    found = service.sql(f"SELECT count(*) AS n FROM {table} WHERE session_id <= {SESSIONS}")[0]["n"]
                    if found != rows[table]:
                        sys.exit(f"FAILED: the service counts {found} {table} of {rows[table]} in run {run}")
            later.join()
            service.wait_for_results(SESSIONS + 1)
            watcher.ends.set()
            watcher.join(60)
            if watcher.wrong or watcher.counts < RUNS:
                sys.exit(f"FAILED: {watcher.counts} counts, wrong ones {watcher.wrong[:5]}")
            if not killed or not packed:
                sys.exit(f"FAILED: {killed} runs were killed, {packed} packs made: the check saw nothing")
            print(f"  {RUNS} runs, {killed} killed, {packed} packs; {watcher.counts} counts right, {watcher.failed} failed")
            service.run("compact", "--data-dir", str(data), "--after-days", "0")
            report = json.loads(service.run("verify", "--data-dir", str(data), "--json"))
            if report["lost"] or report["packed_files"] != 3 * (SESSIONS + 1):
                sys.exit(f"FAILED: {report}")
            service.run("compact", "--data-dir", str(data), "--undo")
            after = sums(data)
            if any(after.get(name) != digest for name, digest in before.items()) or len(after) != 3 * (SESSIONS + 1):
                sys.exit("FAILED: unpacked files are not what they were")
            print(f"  {len(before)} files are what they were, to the byte")
        # A start deletes what killed runs left.
        with running(volant, data) as service:
            left = list((data / "_swap").iterdir())
            if left or service.sql("SELECT count(*) AS n FROM results")[0]["n"] != SESSIONS + 1:
                sys.exit(f"FAILED: left after a start: {left}")


if __name__ == "__main__":
    main()
