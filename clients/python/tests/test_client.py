"""The client against a real service."""

import json
import subprocess
import time
import urllib.request

import pyarrow as pa
import pytest
from conftest import DEVICES, Running

import volant


def test_questions_have_answers_with_units(client: volant.Client) -> None:
    table = client.query("SELECT session_id, gyro_x FROM frames WHERE sensor = 'wrist' LIMIT 5")
    assert table.num_rows == 5 and table.schema.names == ["session_id", "gyro_x"]
    assert "°/s" in volant.comments(table)["gyro_x"]
    assert client.query("SELECT 1 AS n WHERE false").num_rows == 0
    assert {"swings", "stroke_window(session_id, stroke_index, before_ms, after_ms)"} <= {
        *client.tables()["table_name"].to_pylist(),
        *client.tables()["column_name"].to_pylist(),
    }
    assert client.query("SELECT stroke FROM strokes").to_pandas().shape[1] == 1


def test_errors_say_what_and_where(client: volant.Client) -> None:
    for statement, code, status in [
        ("SELECT\n nosuch FROM frames", "bad_statement", 400),
        ("DROP TABLE frames", "read_only", 403),
        ("SELEC 1", "bad_syntax", 400),
    ]:
        with pytest.raises(volant.VolantError) as caught:
            client.query(statement)
        assert (caught.value.code, caught.value.status) == (code, status), caught.value.code
    with pytest.raises(volant.VolantError) as caught:
        client.query("SELECT\n nosuch FROM frames")
    assert caught.value.position == (2, 2)
    with pytest.raises(volant.VolantError) as caught:
        client.query("SELECT * FROM frames", max_rows=10)
    assert caught.value.code == "row_limit"
    with pytest.raises(volant.VolantError) as caught:
        client.session(99)
    assert caught.value.status == 404
    with pytest.raises(volant.Unreachable):
        volant.connect("http://127.0.0.1:1").query("SELECT 1")
    with pytest.raises(ValueError, match="no address"):
        volant.connect("127.0.0.1:8000")


def test_batches_end_their_statement_when_they_are_closed(client: volant.Client, service: Running) -> None:
    total = client.query("SELECT count(*) AS n FROM frames")["n"][0].as_py()
    assert sum(batch.num_rows for batch in client.batches("SELECT * FROM frames")) == total > 5000
    endless = client.batches("SELECT a.seq FROM frames a CROSS JOIN frames b")
    assert next(endless).num_rows > 0
    endless.close()
    for _ in range(200):
        page = urllib.request.urlopen(f"{service.url}/metrics").read().decode()
        if "volant_query_running 0" in page:
            return
        time.sleep(0.05)
    pytest.fail("the statement goes on")


def test_frames_and_windows(client: volant.Client) -> None:
    frames = client.frames(1, ["racket", "wrist"])
    assert set(frames["sensor"].to_pylist()) == {"racket", "wrist"}
    strokes = client.strokes(1)
    assert strokes.num_rows > 2
    window = client.stroke_window(1, 1, before_ms=100, after_ms=50)
    assert set(window["sensor"].to_pylist()) == {"waist", "shoulder", "wrist", "racket"}
    times = window["t_rel_ms"].to_pylist()
    assert min(times) >= -100 and max(times) <= 50
    name = strokes["stroke"][0].as_py()
    assert set(client.strokes(stroke=name)["stroke"].to_pylist()) == {name}
    assert client.results().num_rows == DEVICES


def test_a_session_is_started_watched_and_ended(client: volant.Client) -> None:
    user = client.sessions()[0].user_id
    session = client.start("nobody-plays", user)
    assert session.status == "calibrating" and not session.has_ended
    with pytest.raises(TimeoutError):
        list(client.watch(session.session_id, every_s=0.01, timeout_s=0.05))
    client.stop(session.session_id)
    client.complete(session.session_id)
    seen = list(client.watch(session.session_id, every_s=0.05, timeout_s=20))
    assert seen[-1].status == "stopped", "it has no frames"
    assert client.sessions(device="nobody-plays")[0].session_id == session.session_id
    assert [device["device_code"] for device in client.devices()]
    result = client.result(1)
    assert result["analysis"]["strokes"]
    assert client.doctor(1)


def test_what_is_brought_is_there_and_goes_again(program: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("brought")
    running = Running(program, place / "data")
    try:
        client = running.client
        times = pa.array([10.0 * row for row in range(300)])
        still = {axis: pa.array([0.0] * 300) for axis in ("ax", "ay", "gx", "gy", "gz")}
        table = pa.table({"t_ms": times, "az": pa.array([9.81] * 300), **still})
        assert client.import_recordings(table, dry_run=True)["frames"] == 300 and not client.sessions()
        taken = client.import_recordings(table, device="lab", player_openid="somebody", started_at_us=1_700_000_000_000_000)
        session = client.session(taken["recordings"][0]["session_id"])
        assert (session.device_code, session.started_at_us, session.frame_count) == ("lab", 1_700_000_000_000_000, 300)
        file = place / "my take.csv"
        file.write_text("t_ms,ax,ay,az,gx,gy,gz\n0,0,0,9.8,0,0,0\n10,0,0,9.8,0,0,1\n")
        assert client.import_recordings(file)["recordings"][0]["name"] == "my_take"
        assert client.import_recordings(file)["already"] == 1
        with pytest.raises(volant.VolantError) as caught:
            client.import_recordings(table.drop_columns(["gz"]))
        assert caught.value.code == "bad_recording"
        list(client.watch(session.session_id, timeout_s=30))
        list(client.watch(2, timeout_s=30))

        archive = place / "all.tar.zst"
        with urllib.request.urlopen(f"{running.url}/api/v2/export?format=archive") as answer:
            archive.write_bytes(answer.read())
        assert client.import_archive(archive)["already"] == 2
        other = Running(program, place / "other")
        try:
            report = other.client.import_archive(archive)
            assert (report["taken"], report["frames"]) == (2, 302)
            columns = "SELECT session_id, t_ns, acc_z, gyro_z FROM frames ORDER BY 1, 2"
            assert other.client.query(columns).equals(client.query(columns))
        finally:
            other.stop()

        assert session.user_id is not None
        assert client.erase_player(session.user_id, dry_run=True)["signature"] == ""
        receipt = client.erase_player(session.user_id)
        assert receipt["counts"]["frames"] == 300 and receipt["signature"]
        assert [session.session_id for session in client.sessions()] == [2]
    finally:
        running.stop()


def test_rights(program: str, tmp_path: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("rights") / "data"
    running = Running(program, data, "--auth", "token")
    try:
        with pytest.raises(volant.VolantError) as caught:
            running.client.query("SELECT 1")
        assert caught.value.status == 401
        command = [program, "tokens", "create", "--data-dir", str(data), "--key", "--scope", "sql", "--json"]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        key = volant.connect(running.url, made["token"])
        assert key.query("SELECT 1 AS n")["n"].to_pylist() == [1]
        with pytest.raises(volant.VolantError) as caught:
            key.start("d1")
        assert caught.value.status == 403
    finally:
        running.stop()


def test_a_folder_has_what_the_service_has(client: volant.Client, service: Running) -> None:
    folder = volant.open(service.data)
    names = ["seq", "sensor", "t_ns", "gyro_z"]
    assert folder.frames(1).select(names).equals(client.frames(1).select(names).cast(folder.frames(1).select(names).schema))
    assert folder.strokes()["stroke"].to_pylist() == client.strokes()["stroke"].to_pylist()
    assert folder.results()["session_id"].to_pylist() == [1, 2]
    assert folder.dataset("frames").schema.field("date").type == pa.date32()
    with pytest.raises(ValueError, match="no table"):
        folder.dataset("users")
    with pytest.raises(FileNotFoundError):
        volant.open(service.data / "wal")


def test_labels_go_to_evaluate_and_calibration(client: volant.Client, service: Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("set")
    strokes = client.strokes(1).to_pylist()
    ms = 1e6
    labels = [
        volant.Label("one", "anybody", row["start_ns"] / ms, row["impact_ns"] / ms, row["end_ns"] / ms, row["stroke"])
        for row in strokes
    ]
    with pytest.raises(ValueError, match="other"):
        volant.write_set(folder, {"one": client.frames(1)}, [volant.Label("other", "x", 0, 1, 2, "clear")])
    volant.write_set(folder, {"one": client.frames(1)}, labels)
    assert volant.read_labels(folder) == labels
    command = [service.program, "evaluate", str(folder), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert '"recall":1.0' in json.dumps(report).replace(" ", ""), "what was found is found again"
    user = client.session(1).user_id
    assert user is not None
    named = [row for row in strokes if row["stroke"] != "other"][:4]
    made = client.calibrate(
        user, [{"session_id": 1, "impact_ms": row["impact_ns"] / ms, "stroke": row["stroke"]} for row in named]
    )
    assert made["pipeline"] == f"player-{user}"


def test_labels_are_kept_and_make_a_recording_set(
    client: volant.Client, service: Running, tmp_path_factory: pytest.TempPathFactory
) -> None:
    strokes = client.strokes(2).to_pylist()
    folder = tmp_path_factory.mktemp("labelled") / "set"
    with pytest.raises(ValueError, match="no such session has labels"):
        client.recording_set(folder, [2])
    said = client.label(2, [{"stroke_index": 0, "stroke": "lift"}, {"impact_ms": strokes[1]["impact_ns"] / 1e6, "stroke": "other"}])
    assert [(label["stroke_index"], label["stroke"]) for label in said] == [(0, "lift"), (1, "other")]
    assert client.labels(2) == said
    rows = client.query("SELECT swing_index, label, is_right FROM labelled_swings WHERE session_id = 2 ORDER BY swing_index").to_pylist()
    assert [(row["swing_index"], row["label"]) for row in rows] == [(0, "lift"), (1, "other")]

    client.recording_set(folder, [2])
    kept = volant.read_labels(folder)
    assert [(label.stroke, label.quality) for label in kept[:2]] == [("lift", "clear"), ("other", "unclear")]
    assert len(kept) == len(strokes) - 1, "what is labelled other is no swing, what nobody named counts neither way"
    other = tmp_path_factory.mktemp("labelled") / "by-command"
    command = [service.program, "labels", "--data-dir", str(service.data), "export", "--out", str(other), "--session", "2"]
    subprocess.run(command, check=True, capture_output=True)
    reports = []
    for made in (folder, other):
        command = [service.program, "evaluate", str(made), "--json"]
        reports.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert reports[0]["segmentation"] == reports[1]["segmentation"] and reports[0]["segmentation"]["marks"] == 1

    assert client.label(2, [{"stroke_index": 0, "stroke": None}, {"stroke_index": 1, "stroke": None}]) == []
