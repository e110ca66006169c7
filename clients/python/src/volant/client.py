"""A running service: questions in SQL, sessions, devices, labels."""

from __future__ import annotations

import http.client
import io
import json
import os
import pathlib
import re
import time
import urllib.parse
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from .errors import Unreachable, VolantError
from .sets import said_labels, write_set

#: States in which a session will not change by itself any more.
ENDED: Final = frozenset({"completed", "stopped"})
#: Labels in one request.
LABELS_AT_ONCE: Final = 500


@dataclass(frozen=True)
class Session:
    """A recording session, as the service has it now. Times are µs since 1970 UTC."""

    session_id: int
    device_code: str
    user_id: int | None
    status: str
    started_at_us: int
    ended_at_us: int | None
    frame_count: int
    reason: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Session:
        """From the service's JSON."""
        return cls(
            session_id=row["session_id"],
            device_code=row["device_code"],
            user_id=row.get("user_id"),
            status=row["status"],
            started_at_us=row["started_at_us"],
            ended_at_us=row.get("ended_at_us"),
            frame_count=row.get("frame_count", 0),
            reason=row.get("reason"),
        )

    @property
    def has_ended(self) -> bool:
        """True if there is a result, or there will be none."""
        return self.status in ENDED


class Client:
    """A service at an address. Every call opens a connection of its own, so a client may be shared by threads."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 60.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address like http://127.0.0.1:8000")
        self._parts = parts
        self._token = token
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"volant.connect({self._parts.geturl()!r})"

    # Questions.

    def query(self, sql: str, *, max_rows: int | None = None, timeout_s: float | None = None) -> pa.Table:
        """The answer to a statement, as an Arrow table; ``.to_pandas()`` and ``polars.from_arrow`` go on from there.

        ``max_rows`` and ``timeout_s`` lower the service's own limits; at a limit the statement fails, it is never cut.
        """
        with closing(self._batches(sql, max_rows, timeout_s)) as batches:
            schema: pa.Schema = next(batches)
            return pa.Table.from_batches(list(batches), schema)

    def batches(self, sql: str, *, timeout_s: float | None = None) -> Generator[pa.RecordBatch, None, None]:
        """The answer batch by batch, for more rows than memory has room for. Closing the iterator ends the statement."""
        batches = self._batches(sql, None, timeout_s)
        with closing(batches):
            next(batches)
            yield from batches

    def _batches(self, sql: str, max_rows: int | None, timeout_s: float | None) -> Generator[Any, None, None]:
        body: dict[str, Any] = {"query": sql, "format": "arrow"}
        if max_rows is not None:
            body["max_rows"] = max_rows
        if timeout_s is not None:
            body["timeout_ms"] = max(1, round(timeout_s * 1000))
        connection, answer = self._send("POST", "/api/v2/sql", body, wait_s=timeout_s)
        # Whatever ends this, the connection goes, and with it the statement.
        with closing(connection):
            try:
                with pa.ipc.open_stream(answer) as reader:
                    yield reader.schema
                    yield from reader
                    # A stream without its end was cut: the reader takes that for the end of rows.
                    if not answer.isclosed() and answer.read(1):
                        raise Unreachable("the answer goes on after its end")
            except (OSError, http.client.HTTPException, pa.ArrowInvalid) as error:
                raise Unreachable(f"the answer was cut: {error}") from error

    def tables(self) -> pa.Table:
        """Every table, column and function, with what it is."""
        return self.query("SELECT * FROM data_dictionary")

    def frames(self, session: int, sensors: Iterable[str] | None = None) -> pa.Table:
        """Frames of a session as stored, open sessions too, sorted by sensor and time (``t_ns``, ns since session start)."""
        chosen = "" if sensors is None else f" AND sensor IN ({', '.join(map(_quoted, sensors))})"
        return self.query(f"SELECT * FROM frames WHERE session_id = {int(session)}{chosen} ORDER BY sensor, t_ns, seq")

    def strokes(self, session: int | None = None, stroke: str | None = None) -> pa.Table:
        """Swings that were found, with their figures."""
        chosen = ["true"]
        if session is not None:
            chosen.append(f"session_id = {int(session)}")
        if stroke is not None:
            chosen.append(f"stroke = {_quoted(stroke)}")
        return self.query(f"SELECT * FROM strokes WHERE {' AND '.join(chosen)} ORDER BY session_id, stroke_index")

    def stroke_window(self, session: int, stroke_index: int, before_ms: float = 300, after_ms: float = 200) -> pa.Table:
        """Frames around the impact of a stroke in SI units, with ``t_rel_ms``, the time from the impact."""
        window = f"stroke_window({int(session)}, {int(stroke_index)}, {float(before_ms)}, {float(after_ms)})"
        return self.query(f"SELECT * FROM {window} ORDER BY sensor, t_rel_ms")

    def results(self) -> pa.Table:
        """One row a session: its published analysis."""
        return self.query("SELECT * FROM results ORDER BY session_id")

    # Sessions.

    def sessions(self, *, user: int | None = None, device: str | None = None, status: str | None = None) -> list[Session]:
        """Sessions, the newest first."""
        found: list[Session] = []
        while True:
            query: dict[str, Any] = {"limit": 500, "user_id": user, "device_code": device, "status": status}
            if found:
                query["before"] = found[-1].session_id
            page = self._ask("GET", "/api/v2/sessions", query=query)["sessions"]
            if not page:
                return found
            found.extend(Session.of(row) for row in page)

    def session(self, session: int) -> Session:
        """One session."""
        return Session.of(self._ask("GET", f"/api/v2/sessions/{int(session)}")["session"])

    def start(self, device: str, user: int | None = None) -> Session:
        """Starts a session on a device, for a player by number."""
        body: dict[str, Any] = {"device_code": device}
        if user is not None:
            body["user_id"] = user
        return Session.of(self._ask("POST", "/api/v2/sessions", body)["session"])

    def stop(self, session: int) -> Session:
        """Tells the device to stop and upload."""
        return Session.of(self._ask("POST", f"/api/v2/sessions/{int(session)}/stop")["session"])

    def complete(self, session: int) -> Session:
        """Says that nothing more will come, so that the session is analysed now."""
        return Session.of(self._ask("POST", f"/api/v2/sessions/{int(session)}/complete")["session"])

    def watch(self, session: int, *, every_s: float = 0.5, timeout_s: float | None = None) -> Iterator[Session]:
        """The session whenever its state or number of frames has changed, until it has ended."""
        began, last = time.monotonic(), None
        while True:
            now = self.session(session)
            if now != last:
                yield now
                last = now
            if now.has_ended:
                return
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise TimeoutError(f"session {session} is still {now.status} after {timeout_s} s")
            time.sleep(every_s)

    def result(self, session: int, *, timeout_s: float | None = 60) -> dict[str, Any]:
        """The published analysis of a session: strokes, figures, issues, advice. Waits for it."""
        for _ in self.watch(session, every_s=0.2, timeout_s=timeout_s):
            pass
        answer: dict[str, Any] = self._ask("GET", f"/api/v2/sessions/{int(session)}/result")
        return answer

    def doctor(self, session: int) -> dict[str, Any]:
        """What is wrong with a recording, which figures that affects, and what to do."""
        answer: dict[str, Any] = self._ask("GET", f"/api/v2/sessions/{int(session)}/doctor")
        return answer

    def labels(self, session: int) -> list[dict[str, Any]]:
        """What people say was played in a session, in the order of time; in SQL the tables ``labels`` and ``labelled_swings``."""
        found: list[dict[str, Any]] = self._ask("GET", f"/api/v2/sessions/{int(session)}/labels")["labels"]
        return found

    def label(self, session: int, labels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Says what swings of a session were; the session's labels are the answer.

        A label is ``{"stroke_index": 3, "stroke": "smash"}``, a stroke of the result, or ``{"impact_ms": 3010.0, "stroke": "smash"}``, ms
        from the session's start; ``"other"`` says that there was no stroke, ``None`` takes a label back. It takes the place of one
        within 250 ms.
        """
        found: list[dict[str, Any]] = []
        for first in range(0, len(labels), LABELS_AT_ONCE):
            body = {"labels": list(labels[first : first + LABELS_AT_ONCE])}
            found = self._ask("POST", f"/api/v2/sessions/{int(session)}/labels", body)["labels"]
        return found if labels else self.labels(session)

    def recording_set(self, folder: str | os.PathLike[str], sessions: Iterable[int] | None = None) -> pathlib.Path:
        """Writes labelled sessions, all or these, as a recording set for ``volant train`` and ``volant evaluate``.

        Swings that were found and that nobody labelled are in it as ``unclear``: they teach nothing and are no false alarms. All of it
        is in memory meanwhile; ``volant labels export`` beside a data folder keeps one session at a time.
        """
        wanted = "" if sessions is None else f" WHERE session_id IN ({', '.join(str(int(s)) for s in sessions)})"
        said = self.query(f"SELECT * FROM labels{wanted} ORDER BY session_id, impact_ns").to_pylist()
        if not said:
            raise ValueError("no such session has labels: Client.label makes some")
        chosen = sorted({row["session_id"] for row in said})
        found = self.query(
            f"SELECT session_id, start_ns, impact_ns, end_ns FROM strokes WHERE session_id IN ({', '.join(map(str, chosen))})"
        ).to_pylist()
        return write_set(pathlib.Path(folder), {f"session-{s}": self.frames(s) for s in chosen}, said_labels(said, found))

    def calibrate(
        self, user: int, labels: Sequence[Mapping[str, Any]] = (), base: str | None = None
    ) -> dict[str, Any]:
        """Makes a model of a player's own from the player's labelled swings, and uses it for the player's next sessions.

        It learns from what is kept (``Client.label``) and from ``labels``, which are kept too. Such a label is
        ``{"session_id": 42, "impact_ms": 3010.0, "stroke": "smash"}``: a swing of a session by an instant near its impact, ms from
        the session's start.
        """
        body: dict[str, Any] = {"labels": list(labels)}
        if base is not None:
            body["base"] = base
        answer: dict[str, Any] = self._ask("POST", f"/api/v2/players/{int(user)}/calibration", body)
        return answer

    # What is brought and what goes.

    def import_recordings(
        self,
        recording: str | os.PathLike[str] | pa.Table,
        *,
        name: str | None = None,
        device: str | None = None,
        player_openid: str | None = None,
        started_at_us: int | None = None,
        dry_run: bool = False,
        timeout_s: float = 600.0,
    ) -> dict[str, Any]:
        """Brings a recording file (CSV or Parquet), or a table of the same columns, to the service, which analyses it.

        Columns: ``t_ms``, ``ax``, ``ay``, ``az`` (m/s², gravity included), ``gx``, ``gy``, ``gz`` (°/s), and if there are any ``sensor``,
        ``roll``, ``pitch``, ``yaw`` (°), ``recording``: each recording becomes a session. What is there already is passed over.
        """
        if isinstance(recording, pa.Table):
            made = io.BytesIO()
            pyarrow.parquet.write_table(recording, made)
            content = made.getvalue()
        else:
            path = pathlib.Path(recording)
            content, name = path.read_bytes(), name or re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64] or None
        query = {
            "name": name,
            "device_code": device,
            "player_openid": player_openid,
            "started_at_us": started_at_us,
            "dry_run": "true" if dry_run else None,
        }
        answer: dict[str, Any] = self._ask("POST", "/api/v2/imports/recordings", content, query, wait_s=timeout_s)
        return answer

    def import_archive(
        self, path: str | os.PathLike[str], *, dry_run: bool = False, timeout_s: float = 3600.0
    ) -> dict[str, Any]:
        """Brings an archive (``volant export --format archive``) to the service. For admins."""
        query = {"dry_run": "true" if dry_run else None}
        with open(path, "rb") as file:
            answer: dict[str, Any] = self._ask("POST", "/api/v2/imports/archives", file, query, wait_s=timeout_s)
        return answer

    def erase_player(self, user: int, *, dry_run: bool = False, timeout_s: float = 600.0) -> dict[str, Any]:
        """Erases a player from everything that the service holds; the signed receipt. For admins. There is no way back."""
        query = {"dry_run": "true" if dry_run else None}
        answer: dict[str, Any] = self._ask("DELETE", f"/api/v2/players/{int(user)}", None, query, wait_s=timeout_s)
        return answer

    def devices(self) -> list[dict[str, Any]]:
        """Devices that were ever seen, with their connections."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"limit": 500, "after": found[-1]["device_code"] if found else None}
            page: list[dict[str, Any]] = self._ask("GET", "/api/v2/devices", query=query)["devices"]
            if not page:
                return found
            found.extend(page)

    # The wire.

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        wait_s: float | None = None,
    ) -> Any:
        known = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urllib.parse.urlencode(known)}" if known else path
        connection, answer = self._send(method, target, body, wait_s)
        with closing(connection):
            try:
                return json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Unreachable(f"the answer was cut: {error}") from error

    def _send(
        self, method: str, target: str, body: Any = None, wait_s: float | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = self._parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        # The service ends a statement at its own limit; the socket waits a little longer than that.
        timeout_s = self._timeout_s if wait_s is None else wait_s + 10
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        headers = {"accept": "*/*"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        content = body
        if body is not None and not isinstance(body, bytes | io.BufferedReader):
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        elif isinstance(body, io.BufferedReader):
            headers["content-length"] = str(os.fstat(body.fileno()).st_size)
        try:
            connection.request(method, parts.path.rstrip("/") + target, content, headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                status, said = answer.status, answer.read()
                connection.close()
                raise VolantError.of_answer(status, said)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(f"{parts.netloc}: {error}") from error
        return connection, answer


def connect(url: str = "http://127.0.0.1:8000", token: str | None = None, *, timeout_s: float = 60.0) -> Client:
    """A client of a running service. ``token`` is a key with the scopes that the calls need (``volant tokens create``)."""
    return Client(url, token, timeout_s)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
