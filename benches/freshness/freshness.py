"""How soon live frames are seen in SQL.

A device sends packets of 30 frames at the pace of four sensors at 200 Hz. After each acknowledgement the open session's frames are
counted by `POST /api/v2/sql` until that packet's are among them. Printed: the time from the acknowledgement to the answer that has
them, which includes the statement itself; beside it the time of the same statement when nothing is new, the control.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from service import running
from websockets.sync.client import connect

FRAMES = 30
RATE_HZ = 4 * 200


def packet(number: int) -> str:
    def frame(at: int) -> dict:
        t = at / RATE_HZ
        value = math.sin(t)
        return {
            "acc": [value, 0.2, 9.8],
            "gyro": [100 * value, 5.0, -3.0],
            "angle": [value, 0.0, 0.0],
            "sensor_id": 1 + at % 4,
            "timestamp": 154_501_450 + int(t * 1000),
        }

    frames = [frame(number * FRAMES + i) for i in range(FRAMES)]
    return json.dumps({"type": "batch_sensor_data", "device_code": "2025001", "sensor_type": "waist", "timestamp": number, "data": frames})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--packets", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(arguments.binary, Path(folder) / "data") as service:

        def post(path: str, body: dict) -> object:
            request = urllib.request.Request(
                service.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                sys.exit(f"{path}: {error.read().decode()}")

        with connect(service.url.replace("http://", "ws://") + "/ws/esp32/2025001/", compression=None) as device:
            # As the mini-program starts one.
            form = urllib.parse.urlencode({"openid": "bench", "device_group_code": "2025001", "device_code": "2025001"}).encode()
            with urllib.request.urlopen(service.url + "/wxapp/start_session/", form, timeout=30) as answer:
                session = int(json.loads(answer.read())["session_id"])
            statement = {"query": f"SELECT count(*) AS n FROM frames WHERE session_id = {session}"}

            def seen() -> int:
                return post("/api/v2/sql", {**statement, "format": "json"})[0]["n"]

            def acknowledged(text: str) -> None:
                device.send(text)
                while json.loads(device.recv(timeout=30))["type"] != "batch_sensor_data_response":
                    pass

            fresh, control, looks = [], [], []
            began = time.perf_counter()
            for number in range(arguments.packets):
                due = began + number * FRAMES / RATE_HZ
                time.sleep(max(0.0, due - time.perf_counter()))
                acknowledged(packet(number))
                at = time.perf_counter()
                count = 1
                while seen() < (number + 1) * FRAMES:
                    count += 1
                fresh.append(time.perf_counter() - at)
                looks.append(count)
                at = time.perf_counter()
                seen()
                control.append(time.perf_counter() - at)

    def told(name: str, values: list[float]) -> None:
        ms = sorted(value * 1000 for value in values)
        print(f"{name:<44}{statistics.median(ms):>8.1f}{ms[int(len(ms) * 0.99)]:>8.1f}{ms[-1]:>8.1f}")

    print(f"{arguments.packets} packets, {arguments.packets * FRAMES} frames; seen at the first look: {looks.count(1)}")
    print(f"{'ms':<44}{'p50':>8}{'p99':>8}{'max':>8}")
    told("acknowledged to seen in SQL", fresh)
    told("the statement alone (control)", control)


main()
