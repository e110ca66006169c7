"""A service of its own in a temporary folder, for the checks beside this file."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60


class Service:
    """A running `volant serve`."""

    def __init__(self, volant: str, data: Path, *flags: str, postgres: bool = False, **settings: str):
        self.volant, self.data = volant, data
        self.log = open(data.parent / "serve.log", "ab")
        self.process = subprocess.Popen(
            [volant, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data), *flags],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **({"VOLANT_POSTGRES_LISTEN": "127.0.0.1:0"} if postgres else {}), **settings},
        )
        self.url = self._line("listening on ")
        self.flight = self._line("Flight SQL on ")
        # Host, port and database.
        self.postgres = self._line("PostgreSQL wire on postgresql://") if postgres else ""

    def _line(self, beginning: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line.startswith(beginning):
            sys.exit(f"FAILED: the service said {line!r}, not {beginning!r}")
        return line.removeprefix(beginning)

    def run(self, *command: str) -> str:
        """A command of the program; its output."""
        done = subprocess.run([self.volant, *command], capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            sys.exit(f"FAILED: volant {' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def sql(self, statement: str) -> list[dict]:
        """Rows by `volant sql` of the running server."""
        return json.loads(self.run("sql", "--url", self.url, "--format", "json", statement))

    def metrics(self) -> str:
        """Its metrics in Prometheus' text."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            return answer.read().decode()

    def play(self, devices: int, duration_s: int, *flags: str) -> None:
        """Records generated sessions to their end, faster than real."""
        self.run(
            "simulate", "--url", self.url, "--devices", str(devices), "--duration", str(duration_s), "--speed", "max", *flags
        )

    def wait_for_results(self, sessions: int, patience_s: float = PATIENCE_S) -> None:
        began = time.monotonic()
        while self.sql("SELECT count(*) AS n FROM results")[0]["n"] < sessions:
            if time.monotonic() - began > patience_s:
                sys.exit(f"FAILED: {sessions} results did not come")
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@contextmanager
def running(volant: str, data: Path, *flags: str, postgres: bool = False, **settings: str) -> Iterator[Service]:
    """A service that ends with the block; `settings` are environment variables."""
    service = Service(volant, data, *flags, postgres=postgres, **settings)
    try:
        yield service
    finally:
        service.stop()
