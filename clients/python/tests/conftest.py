"""A real service with recorded sessions, started once. ``VOLANT_BIN`` names the program."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import volant

DEVICES = 2


class Running:
    def __init__(self, program: str, data: Path, *flags: str):
        self.program, self.data = program, data
        command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on "), f"the service said {line!r}"
        self.url = line.removeprefix("listening on ")
        self.client = volant.connect(self.url)

    def play(self, duration_s: int, *flags: str) -> None:
        command = [self.program, "simulate", "--url", self.url, "--duration", str(duration_s), "--speed", "max", *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="session")
def program() -> str:
    path = os.environ.get("VOLANT_BIN")
    assert path and Path(path).is_file(), "VOLANT_BIN must name the program: cargo build makes target/debug/volant"
    return path


@pytest.fixture(scope="session")
def service(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(program, tmp_path_factory.mktemp("service") / "data")
    try:
        running.play(30, "--devices", str(DEVICES))
        for session in range(1, DEVICES + 1):
            running.client.result(session)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def client(service: Running) -> volant.Client:
    return service.client
