"""A season to look at: three players, six evenings each, generated and analysed by the service itself.

What is planted, so that a notebook can find it again: player *ana* swings 10 % faster every evening; player *bo* tires, the angular
velocity of every sensor sinks by a quarter through an evening; player *cy* stays as he is.

    python notebooks/season.py VOLANT_BINARY FOLDER      # builds it, serves it, prints the address, until Ctrl-C
"""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import volant

PLAYERS = ("ana", "bo", "cy")
EVENINGS = 6
DURATION_S = 75
GAIN_PER_EVENING = 0.1
FATIGUE = 0.25


def planted(samples: pa.Table, player: str, evening: int) -> pa.Table:
    """The recording with what is planted in it."""
    frame = samples.to_pandas()
    factor = 1.0
    if player == "ana":
        factor = 1 + GAIN_PER_EVENING * evening
    elif player == "bo":
        factor = 1 - FATIGUE * frame["t_ms"] / frame["t_ms"].max()
    for axis in ("gx", "gy", "gz"):
        frame[axis] *= factor
    return pa.Table.from_pandas(frame, preserve_index=False)


def build(program: str, folder: Path) -> Path:
    """Makes the season's data folder; nothing if it is there."""
    data = folder / "data"
    if (folder / "done").exists():
        return data
    folder.mkdir(parents=True, exist_ok=True)
    for number, player in enumerate(PLAYERS):
        for evening in range(EVENINGS):
            recording = folder / f"{player}-{evening}.parquet"
            seed = str(1 + number * EVENINGS + evening)
            command = [program, "simulate", "--write", str(recording), "--duration", str(DURATION_S), "--seed", seed]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            pq.write_table(planted(pq.read_table(recording), player, evening), recording)
            started = f"2026-{3 + evening // 2:02}-{5 + 14 * (evening % 2):02}T{17 + number}:00:00Z"
            command = [program, "import", "recordings", str(recording), "--data-dir", str(data)]
            command += ["--openid", player, "--device", f"court-{number}", "--started-at", started]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder / "done").touch()
    return data


def serve(program: str, data: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts the service on the season and waits until all of it is analysed."""
    command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip().removeprefix("listening on ")
    service = volant.connect(url)
    began = time.monotonic()
    while service.query("SELECT count(*) AS n FROM results")["n"][0].as_py() < len(PLAYERS) * EVENINGS:
        if time.monotonic() - began > 300:
            process.terminate()
            sys.exit("the season was not analysed in five minutes")
        time.sleep(0.2)
    return process, url


if __name__ == "__main__":
    running, address = serve(sys.argv[1], build(sys.argv[1], Path(sys.argv[2])))
    print(f"VOLANT_URL={address} VOLANT_DATA={Path(sys.argv[2]) / 'data'}", flush=True)
    try:
        running.wait()
    except KeyboardInterrupt:
        running.terminate()
