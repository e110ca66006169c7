#!/usr/bin/env python3
"""Flight SQL by the ADBC driver that data scientists use.

Asks a running service: statements whose announced columns the driver compares with those that come, prepared statements
with values, every catalog call, a metadata walk as JDBC tools make it, errors, rights, a statement that is given up.

Usage: flight_sql.py VOLANT_BINARY
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
from adbc_driver_flightsql import DatabaseOptions
from service import Service, running

# One of each kind that a naive server announces otherwise than it answers: filters that prove a column present, empty
# answers, constants, aggregates, joins, windows, views, table functions, nested types, plans.
STATEMENTS = [
    "SELECT 1 AS n, 'text' AS t, CAST(NULL AS INT) AS nothing",
    "SELECT * FROM frames ORDER BY session_id, seq LIMIT 5",
    "SELECT * FROM frames WHERE session_id < 0",
    "SELECT gyro_x FROM frames WHERE gyro_x IS NOT NULL LIMIT 3",
    "SELECT count(*) FROM frames",
    "SELECT sensor, count(*), avg(gyro_x), max(t_ns) FROM frames GROUP BY sensor ORDER BY sensor",
    "SELECT coalesce(user_id, 0) AS u, confidence FROM strokes WHERE confidence IS NOT NULL",
    "SELECT s.session_id, r.overall_score FROM sessions s LEFT JOIN results r USING (session_id)",
    "SELECT session_id, lag(impact_ns) OVER (PARTITION BY session_id ORDER BY stroke_index) AS before FROM strokes",
    "SELECT * FROM swings",
    "SELECT * FROM data_quality",
    "SELECT * FROM session_summary",
    "SELECT * FROM stroke_frames LIMIT 10",
    "SELECT * FROM stroke_window(1, 0, 50, 50)",
    "SELECT * FROM resample(1, 50, 100) ORDER BY sensor, tick LIMIT 10",
    "SELECT make_array(1, 2) AS list, named_struct('a', 1) AS pair",
    "SELECT date, received_at FROM frames_si LIMIT 2",
    "SELECT DISTINCT stroke FROM strokes UNION ALL SELECT sensor FROM frames",
    "EXPLAIN SELECT count(*) FROM frames",
    "SHOW TABLES",
    "SELECT * FROM data_dictionary",
]


def connect(service: Service, **options: str):
    return flight_sql.connect(service.flight.replace("grpc://", "grpc+tcp://"), db_kwargs=options or None)


def fails(what: str, kind: type, text: str, action) -> None:
    try:
        action()
    except kind as error:
        assert text in str(error), f"{what}: {error}"
    else:
        sys.exit(f"FAILED: {what} did not fail")


def answer(cursor, statement: str, *values):
    cursor.execute(statement, *values)
    return cursor.fetch_arrow_table()


def statements(service: Service) -> None:
    with connect(service) as connection, connection.cursor() as cursor:
        for statement in STATEMENTS:
            cursor.execute(statement)
            table = cursor.fetch_arrow_table()
            by_http = service.run("sql", "--url", service.url, "--format", "jsonl", statement).splitlines()
            if "LIMIT" not in statement and "EXPLAIN" not in statement:
                assert table.num_rows == len(by_http), f"{statement}: {table.num_rows} rows, {len(by_http)} by HTTP"
            assert table.schema.names == list(json.loads(by_http[0])) if by_http else True, statement
        cursor.execute("SELECT gyro_x FROM frames")
        comment = cursor.fetch_arrow_table().schema.field("gyro_x").metadata[b"comment"].decode()
        assert "°/s" in comment, comment
        # Larger than a message: the driver takes it in pieces.
        cursor.execute("SELECT * FROM frames")
        count = service.sql("SELECT count(*) AS n FROM frames")[0]["n"]
        assert cursor.fetch_arrow_table().num_rows == count > 10_000
    print(f"  {len(STATEMENTS)} statements: columns as announced; {count} frames in one answer")


def prepared(service: Service) -> None:
    with connect(service) as connection, connection.cursor() as cursor:
        statement = "SELECT count(*) AS n FROM frames WHERE session_id = $1 AND sensor = $2"
        for session, sensor in [(1, "racket"), (2, "waist"), (2, "no such sensor")]:
            cursor.execute(statement, (session, sensor))
            told = service.sql(
                f"SELECT count(*) AS n FROM frames WHERE session_id = {session} AND sensor = '{sensor}'"
            )
            assert cursor.fetchone()[0] == told[0]["n"], (session, sensor)
        cursor.execute("SELECT $1 + 0.5 AS n", (1.25,))
        assert cursor.fetchone()[0] == 1.75
        parameters = cursor.adbc_prepare(statement)
        assert parameters is not None and len(parameters) == 2, parameters
        assert parameters.field(0).type == pa.int64() and parameters.field(1).type == pa.string(), parameters
        fails(
            "two sets of values",
            adbc_driver_manager.Error,
            "takes one",
            lambda: answer(cursor, statement, pa.record_batch({"1": [1, 2], "2": ["racket", "racket"]})),
        )
        fails(
            "an update",
            adbc_driver_manager.Error,
            "only reads",
            lambda: cursor.executemany("DELETE FROM frames WHERE session_id = $1", [(1,), (2,)]),
        )
    print("  prepared statements with values")


def catalog(service: Service) -> None:
    with connect(service) as connection:
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "Volant", info
        assert sorted(connection.adbc_get_table_types()) == ["BASE TABLE", "VIEW"]
        walk = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        assert [entry["catalog_name"] for entry in walk] == ["volant"], walk
        tables = {
            table["table_name"]: table
            for schema in walk[0]["catalog_db_schemas"]
            for table in schema["db_schema_tables"]
        }
        told = {row["table_name"] for row in service.sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )}
        assert set(tables) == told, set(tables) ^ told
        assert tables["frames"]["table_type"] == "BASE TABLE" and tables["swings"]["table_type"] == "VIEW"
        columns = [column["column_name"] for column in tables["strokes"]["table_columns"]]
        assert columns[:2] == ["session_id", "stroke_index"] and columns[-1] == "date", columns
        only = connection.adbc_get_objects(depth="tables", table_name_filter="frames%").read_all().to_pylist()
        names = [t["table_name"] for s in only[0]["catalog_db_schemas"] for t in s["db_schema_tables"]]
        assert sorted(names) == ["frames", "frames_si"], names
        schema = connection.adbc_get_table_schema("strokes")
        assert schema.field("impact_ns").type == pa.int64(), schema
    # What ADBC has no call for, JDBC drivers ask: keys, types, schemas, by bare Flight.
    client = pyarrow.flight.connect(service.flight)
    for name, at_least in [
        ("CommandGetPrimaryKeys", 2),
        ("CommandGetExportedKeys", 0),
        ("CommandGetImportedKeys", 0),
        ("CommandGetCrossReference", 0),
        ("CommandGetXdbcTypeInfo", 8),
        ("CommandGetDbSchemas", 1),
        ("CommandGetCatalogs", 1),
        ("CommandGetTableTypes", 2),
        ("CommandGetSqlInfo", 8),
    ]:
        # A protobuf Any: the type's address, then the message; of keys field 3 is the table.
        kind = f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
        message = b"\x1a\x07strokes" if "Keys" in name else b""
        command = b"\x0a" + bytes([len(kind)]) + kind + b"\x12" + bytes([len(message)]) + message
        about = client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command))
        table = client.do_get(about.endpoints[0].ticket).read_all()
        assert table.schema.equals(about.schema), f"{name}: {table.schema} is not {about.schema}"
        assert table.num_rows >= at_least, f"{name}: {table.num_rows} rows"
        if name == "CommandGetPrimaryKeys":
            assert table["column_name"].to_pylist() == ["session_id", "stroke_index"], table
    print(f"  catalog: {len(tables)} tables, keys, types")


def errors(service: Service) -> None:
    with connect(service) as connection, connection.cursor() as cursor:
        for statement, text in [
            ("SELEC 1", "line 1, column 1"),
            ("SELECT nosuch FROM frames", "nosuch"),
            ("DROP TABLE frames", "only reads"),
            ("INSERT INTO frames SELECT * FROM frames", "only reads"),
            ("SELECT 1; SELECT 2", "2 statements"),
            ("SELECT * FROM stroke_window(1, 'a', 2, 3)", "arguments are numbers"),
            ("SELECT 1 / 0", "zero"),
        ]:
            fails(
                statement,
                adbc_driver_manager.Error,
                text,
                lambda statement=statement: answer(cursor, statement),
            )
        # The connection is as good as before.
        cursor.execute("SELECT 2")
        assert cursor.fetchone()[0] == 2
    client = pyarrow.flight.connect(service.flight)
    fails("a foreign ticket", pa.ArrowInvalid, "invalid argument", lambda: client.do_get(pyarrow.flight.Ticket(b"?")).read_all())
    print("  errors with their places")


def given_up(service: Service) -> None:
    """A client that goes away ends its statement."""

    def running_now() -> float:
        import urllib.request

        page = urllib.request.urlopen(f"{service.url}/metrics").read().decode()
        lines = [line for line in page.splitlines() if line.startswith("volant_query_running ")]
        return float(lines[0].split()[1]) if lines else 0.0

    with connect(service) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT a.seq FROM frames a CROSS JOIN frames b")
        next(iter(cursor.fetch_record_batch()))
        assert running_now() >= 1
    began = time.monotonic()
    while running_now() > 0:
        assert time.monotonic() - began < 20, "the statement goes on for nobody"
        time.sleep(0.05)
    print("  a statement ends with its client")


def rights(volant: str, folder: Path) -> None:
    data = folder / "rights"
    tokens = {}
    with running(volant, data, "--auth", "token"):
        pass
    for scope in ("sql", "sessions:read"):
        command = [volant, "tokens", "create", "--data-dir", str(data), "--key", "--scope", scope, "--json"]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
        tokens[scope] = made["token"]
    with running(volant, data, "--auth", "token") as service:
        def ask(**options: str) -> int:
            with connect(service, **options) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 7")
                return cursor.fetchone()[0]

        header = DatabaseOptions.AUTHORIZATION_HEADER.value
        assert ask(**{header: f"Bearer {tokens['sql']}"}) == 7
        assert ask(username="anybody", password=tokens["sql"]) == 7
        fails("nobody", adbc_driver_manager.Error, "", ask)
        fails("a wrong token", adbc_driver_manager.Error, "", lambda: ask(**{header: "Bearer nonsense"}))
        fails(
            "a key for other things",
            adbc_driver_manager.Error,
            "",
            lambda: ask(**{header: f"Bearer {tokens['sessions:read']}"}),
        )
    print("  rights: only keys with the scope sql, by header or as a password")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with running(sys.argv[1], folder / "data") as service:
            service.play(2, 40)
            service.wait_for_results(2)
            statements(service)
            prepared(service)
            catalog(service)
            errors(service)
            given_up(service)
        rights(sys.argv[1], folder)
    print("Flight SQL answers ADBC")


if __name__ == "__main__":
    main()
