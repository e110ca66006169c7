#!/usr/bin/env python3
"""Exports and archives in an object store: an S3 server is written to by volant and read by the usual S3 client.

Rows as one object and as one a session, a run that was interrupted, an archive that is read back and imported elsewhere, the
archives that retention makes before frames go, a store that cannot be reached, keys that are wrong.

Usage: object_store.py VOLANT_BINARY
"""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import pyarrow.parquet as parquet
from moto.server import ThreadedMotoServer
from service import running


def check(what: str, holds: bool, said: object = "") -> None:
    if not holds:
        sys.exit(f"FAILED: {what}\n{said}")


def main(volant: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "volant",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="volant", aws_secret_access_key="secret", region_name="us-east-1"
    )
    s3.create_bucket(Bucket="season")

    def objects() -> dict[str, int]:
        return {found["Key"]: found["Size"] for found in s3.list_objects_v2(Bucket="season").get("Contents", [])}

    def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, **keys, **environment}
        return subprocess.run([volant, *command], capture_output=True, text=True, timeout=300, env=environment)

    def done(*command: str) -> dict:
        finished = run(*command, "--json")
        check(" ".join(command), finished.returncode == 0, finished.stdout + finished.stderr)
        return json.loads(finished.stdout)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = folder / "data"
        here = ("--data-dir", str(data))
        with running(volant, data, VOLANT_SESSIONS__LATE_GRACE_S="1") as service:
            service.play(3, 30, "--seed", "9")
            service.wait_for_results(3)
            # Frames that come late are waited for; then a session is closed.
            began = time.monotonic()
            while len(done("retention", *here, "--frames-days", "0", "--dry-run")["sessions"]) < 3:
                check("sessions are closed", time.monotonic() - began < 60)
                time.sleep(0.2)

        # One object.
        said = done("export", *here, "--session", "1", "--out", "s3://season/one.parquet")
        done("export", *here, "--session", "1", "--out", str(folder / "one.parquet"))
        body = s3.get_object(Bucket="season", Key="one.parquet")["Body"].read()
        check("its length is told", said["bytes"] == len(body), said)
        check(
            "the object's rows are those of a local file",
            parquet.read_table(io.BytesIO(body)).equals(parquet.read_table(folder / "one.parquet")),
        )

        # One a session; what was made of what the session still is, is left alone.
        said = done("export", *here, "--format", "jsonl", "--table", "strokes", "--out", "s3://season/strokes/")
        check("three objects", said["files"] == 3 and len([key for key in objects() if key.startswith("strokes/")]) == 3, said)
        s3.delete_object(Bucket="season", Key="strokes/strokes-2.jsonl")
        said = done("export", *here, "--format", "jsonl", "--table", "strokes", "--out", "s3://season/strokes/")
        check("a run that was interrupted goes on", said["files"] == 1 and said["already"] == 2, said)
        whole = objects()
        s3.put_object(Bucket="season", Key="strokes/strokes-1.jsonl", Body=b"of somebody else")
        s3.put_object(Bucket="season", Key="strokes/strokes-3.jsonl", Body=b"of before", Metadata={"volant-made-of": "0" * 64})
        said = done("export", *here, "--format", "jsonl", "--table", "strokes", "--out", "s3://season/strokes/")
        check("what is not of this is made anew", said["files"] == 2 and said["already"] == 1 and objects() == whole, said)

        # An archive, also when it is killed on its way.
        archive = ("export", *here, "--format", "archive", "--out", "s3://season/all.tar.zst")
        for pause in (0.05, 0.2, 0.4):
            process = subprocess.Popen(
                [volant, *archive], env={**os.environ, **keys}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if "all.tar.zst" in objects():
                s3.download_file("season", "all.tar.zst", str(folder / "early.tar.zst"))
                finished = run("import", "archive", str(folder / "early.tar.zst"), "--data-dir", str(folder / "x"), "--dry-run")
                check("an object that is there is whole", finished.returncode == 0, finished.stderr)
        said = done(*archive)
        fetched = folder / "all.tar.zst"
        s3.download_file("season", "all.tar.zst", str(fetched))
        check("the archive is there, whole", fetched.stat().st_size == said["bytes"], said)
        check("nothing of it stays here", list((data / "outgoing").iterdir()) == [])
        (folder / "tmp").mkdir()
        elsewhere = ("import", "archive", "s3://season/all.tar.zst", "--data-dir", str(folder / "elsewhere"))
        finished = run(*elsewhere, TMPDIR=str(folder / "tmp"))
        check("it is imported elsewhere", finished.returncode == 0, finished.stdout + finished.stderr)
        check("and nothing of it stays", list((folder / "tmp").iterdir()) == [])
        missing = run("import", "archive", "s3://season/none.tar.zst", "--data-dir", str(folder / "elsewhere"))
        check("one that is not there is named", "s3://season/none.tar.zst" in missing.stderr, missing.stderr)

        def counted(place: Path) -> list:
            question = "SELECT session_id, count(*) AS n, sum(seq) AS s FROM frames GROUP BY 1 ORDER BY 1"
            answer = run("sql", "--data-dir", str(place), "--format", "json", question)
            check("volant sql", answer.returncode == 0, answer.stderr)
            return json.loads(answer.stdout)

        check("with the same frames", counted(folder / "elsewhere") == counted(data))
        erased = run("erase", *here, "--player", "1", "--dry-run", "--json")
        check("erasing a player names it", "s3://season/all.tar.zst" in erased.stdout, erased.stdout + erased.stderr)

        # Before frames go.
        before = counted(data)
        said = done("retention", *here, "--frames-days", "0", "--archive-dir", "s3://season/kept")
        kept = [key for key in objects() if key.startswith("kept/")]
        check("frames go after an archive of them is kept", len(kept) == 1 and len(said["sessions"]) == 3, (said, kept))
        s3.download_file("season", kept[0], str(folder / "kept.tar.zst"))
        finished = run("import", "archive", str(folder / "kept.tar.zst"), "--data-dir", str(folder / "back"))
        check("and come back from it", finished.returncode == 0 and counted(folder / "back") == before, finished.stderr)

        # What goes wrong is said.
        for what, words, environment in [
            ("no such bucket", "s3://nowhere/one.parquet", {}),
            ("a store that is not there", "s3://season/two.parquet", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
            ("no TLS where it was not allowed", "s3://season/two.parquet", {"AWS_ALLOW_HTTP": "false"}),
        ]:
            finished = run("export", "--data-dir", str(folder / "back"), "--session", "1", "--out", words, **environment)
            check(f"{what}: it is said", finished.returncode == 1 and words in finished.stderr, finished.stderr)
        check("and leaves nothing", "two.parquet" not in objects())
    server.stop()
    print("object store: objects, archives and retention's archives are what they should be")


main(sys.argv[1])
