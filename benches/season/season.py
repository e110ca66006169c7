#!/usr/bin/env python3
"""Ten analytical questions over a season: Volant beside DuckDB and Polars on the same Parquet files, with ratios.

The season is generated once into a folder outside the repository (about 18 bytes a frame) and used again. Each question is
asked once to warm up and then several times of each engine in turn, so that a noisy moment meets all; the shortest time of
each counts. Volant is asked as its users ask: the running service, over HTTP, Arrow as the answer. Answers are compared.

Usage: season.py VOLANT_BINARY FOLDER [--frames N] [--runs N] [--json]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "interop"))

import duckdb  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.ipc  # noqa: E402
from service import running  # noqa: E402
from ten_questions import QUESTIONS, TABLES, rows_of, same  # noqa: E402

SESSION_S = 600
RATE_HZ = 200


def build(volant: str, folder: Path, frames: int) -> None:
    """Makes the season; one that was interrupted is gone on with, because an import takes what is not there yet."""
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    sessions = max(1, round(frames / (SESSION_S * RATE_HZ * 4)))
    for number in range(sessions):
        recording = folder / f"recording-{number}.parquet"
        command = [volant, "simulate", "--write", str(recording), "--seed", str(number + 1)]
        subprocess.run([*command, "--duration", str(SESSION_S), "--rate", str(RATE_HZ)], check=True, stdout=subprocess.DEVNULL)
        day, hour = divmod(number, 4)
        started = f"2026-{1 + day // 28 % 12:02}-{1 + day % 28:02}T{10 + hour}:00:00Z"
        command = [volant, "import", "recordings", str(recording), "--data-dir", str(data), "--started-at", started]
        player, device = f"season-player-{number % 12}", f"season-{number % 6}"
        subprocess.run([*command, "--openid", player, "--device", device], check=True, stdout=subprocess.DEVNULL)
        recording.unlink()
        Path(str(recording).replace(".parquet", ".labels.csv")).unlink(missing_ok=True)
        print(f"\r{number + 1}/{sessions} sessions", end="", file=sys.stderr, flush=True)
    with running(volant, data) as service:
        service.wait_for_results(sessions, patience_s=30 + 10 * sessions)
    print(file=sys.stderr)
    done.touch()


class Volant:
    def __init__(self, url: str):
        self.url = f"{url}/api/v2/sql"

    def ask(self, statement: str) -> list[tuple]:
        body = json.dumps({"query": statement, "format": "arrow"}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer, pa.ipc.open_stream(answer) as reader:
            return rows_of(reader.read_all())


class DuckDb:
    def __init__(self, data: Path):
        self.connection = duckdb.connect()
        for name in TABLES:
            self.connection.execute(
                f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{data}/{name}/*/*.parquet', hive_partitioning = true)"
            )

    def ask(self, statement: str) -> list[tuple]:
        return self.connection.execute(statement).fetchall()


class Polars:
    def __init__(self, data: Path):
        self.context = pl.SQLContext(
            {name: pl.scan_parquet(data / name / "*" / "*.parquet", hive_partitioning=True) for name in TABLES}
        )

    def ask(self, statement: str) -> list[tuple]:
        return self.context.execute(statement, eager=True).rows()


def timed(engine, statement: str) -> tuple[float, list[tuple]]:
    began = time.perf_counter()
    answer = engine.ask(statement)
    return time.perf_counter() - began, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("volant")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=100_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folder = args.folder / f"season-{args.frames}"
    build(args.volant, folder, args.frames)
    data = folder / "data"
    # As a season lies after a week; and nothing is packed under the engines while they are measured.
    subprocess.run([args.volant, "compact", "--data-dir", str(data)], check=True, stdout=subprocess.DEVNULL)
    bytes_of_frames = sum(file.stat().st_size for file in (data / "frames").glob("*/*.parquet"))
    table = []
    limits = ["--query-timeout-s", "600", "--query-memory-limit-bytes", str(4 << 30)]
    with running(args.volant, data, *limits, VOLANT_COMPACTION__AFTER_DAYS="0") as service:
        engines = {"volant": Volant(service.url), "duckdb": DuckDb(data), "polars": Polars(data)}
        frames = engines["duckdb"].ask("SELECT count(*) FROM frames")[0][0]
        for question, statement in QUESTIONS.items():
            best: dict[str, float] = {}
            answers = {}
            for run in range(args.runs + 1):
                for name, engine in engines.items():
                    seconds, answers[name] = timed(engine, statement)
                    if run > 0:
                        best[name] = min(seconds, best.get(name, seconds))
            for name in ("duckdb", "polars"):
                if not same(answers["volant"], answers[name]):
                    sys.exit(f"FAILED: {question}: volant and {name} differ")
            table.append({"question": question, **{f"{name}_s": round(best[name], 4) for name in engines}})

        # Export throughput: one session as Parquet through the service, and the same as a plain scan.
        with tempfile.TemporaryDirectory() as out:
            began = time.perf_counter()
            service.run("export", "--url", service.url, "--session", "1", "--format", "parquet", "--out", f"{out}/s.parquet")
            seconds = time.perf_counter() - began
        rows = engines["duckdb"].ask("SELECT count(*) FROM frames WHERE session_id = 1")[0][0]

    # Bytes a frame against what else one might write.
    sample = duckdb.connect().sql(f"SELECT * FROM read_parquet('{data}/frames/*/*.parquet') WHERE session_id = 1").to_arrow_table()

    sizes = {"volant": bytes_of_frames / frames}
    with tempfile.TemporaryDirectory() as out:
        import pyarrow.csv
        import pyarrow.feather
        import pyarrow.parquet as pq

        pq.write_table(sample, f"{out}/d.parquet", compression="zstd", use_dictionary=True)
        sizes["parquet, dictionaries and zstd"] = os.path.getsize(f"{out}/d.parquet") / sample.num_rows
        pq.write_table(sample, f"{out}/s.parquet", compression="snappy")
        sizes["parquet, snappy"] = os.path.getsize(f"{out}/s.parquet") / sample.num_rows
        pa.feather.write_feather(sample, f"{out}/f.arrow", compression="zstd")
        sizes["arrow file, zstd"] = os.path.getsize(f"{out}/f.arrow") / sample.num_rows
        pa.csv.write_csv(sample, f"{out}/c.csv")
        sizes["csv"] = os.path.getsize(f"{out}/c.csv") / sample.num_rows
    report = {
        "frames": frames,
        "questions": table,
        "export_frames_per_s": round(rows / seconds),
        "bytes_per_frame": {name: round(size, 2) for name, size in sizes.items()},
    }
    if args.json:
        print(json.dumps(report))
        return
    print(f"{frames:,} frames, best of {args.runs}\n")
    print(f"| question | volant, s | DuckDB, s | Polars, s | to DuckDB | to Polars |\n|---|---|---|---|---|---|")
    for row in table:
        ours, duck, polar = row["volant_s"], row["duckdb_s"], row["polars_s"]
        print(f"| {row['question']} | {ours:.3f} | {duck:.3f} | {polar:.3f} | {ours / duck:.2f} | {ours / polar:.2f} |")
    print(f"\nexport of a session as Parquet over HTTP: {report['export_frames_per_s']:,} frames/s")
    print("\n| stored as | bytes a frame |\n|---|---|")
    for name, size in sizes.items():
        print(f"| {name} | {size:.1f} |")


if __name__ == "__main__":
    main()
