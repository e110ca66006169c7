#!/usr/bin/env python3
"""The PostgreSQL wire by psql, by the usual driver, by ADBC and connectorx, and by SQLAlchemy as BI tools use it.

Asks a running service: psql's own questions about tables, scripts, errors with their places, a statement that is given up
with Ctrl-C; values of every kind in prepared statements, in text and in binary; the same answers as `volant sql`; reading
only; `COPY`, by hand and as ADBC's driver and Polars by connectorx ask for it; cursors; statements that are cancelled while rows come,
and whose client is killed; SQLAlchemy's inspection of schemas, tables, views and columns; rights.

Usage: postgres.py VOLANT_BINARY PSQL
"""

import asyncio
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import asyncpg
import polars
import psycopg
import sqlalchemy
from service import Service, running

QUESTIONS = [
    "SELECT sensor, count(*) AS n FROM frames GROUP BY sensor ORDER BY sensor",
    "SELECT session_id, device_code, frame_count FROM sessions ORDER BY session_id",
    "SELECT session_id, stroke_index, stroke, confidence, delay_wrist_racket_ms FROM strokes ORDER BY session_id, stroke_index",
    "SELECT session_id, (SELECT max(s.end_ns) FROM strokes s WHERE s.session_id = r.session_id) AS last FROM results r ORDER BY 1",
    "SELECT t_ns, CAST(gyro_x AS DOUBLE PRECISION) AS gyro_x, CAST(acc_z AS DOUBLE PRECISION) AS acc_z FROM frames WHERE session_id = 1 AND sensor = 'wrist' ORDER BY t_ns LIMIT 500",
]


# Ten thousand million rows, and a count of none.
ENDLESS = "SELECT a.x + b.y AS z FROM generate_series(1, 100000) a(x), generate_series(1, 100000) b(y) WHERE a.x + b.y > {}"
LONG = "SELECT count(*) FROM generate_series(1, 200000) a(x), generate_series(1, 200000) b(y) WHERE a.x * b.y = {}"


def check(what: str, holds: bool, said: object = "") -> None:
    if not holds:
        sys.exit(f"FAILED: {what}\n{said}")


class Psql:
    def __init__(self, binary: str, address: str):
        self.command = [binary, "--no-psqlrc", "--pset=pager=off", f"postgresql://somebody@{address}"]

    def run(self, *arguments: str, password: str = "") -> subprocess.CompletedProcess:
        environment = {**os.environ, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "20"}
        return subprocess.run(
            [*self.command, "--no-password", *arguments], capture_output=True, text=True, timeout=120, env=environment
        )

    def says(self, *arguments: str) -> str:
        done = self.run(*arguments)
        check(f"psql {arguments}", done.returncode == 0, done.stdout + done.stderr)
        return done.stdout


def by_psql(psql: Psql) -> None:
    tables = psql.says("--command", r"\dt")
    check("psql lists the tables", all(f"| {name} " in tables for name in ("frames", "strokes", "sessions")), tables)
    check("psql lists the views", "swings" in psql.says("--command", r"\dv"))
    frames = psql.says("--command", r"\d frames")
    check("psql describes a table", "gyro_x" in frames and "real" in frames, frames)
    described = psql.says("--command", r"\d+ frames")
    check("psql tells units", "angular velocity x, °/s; null: not finite" in described, described)
    for command in (r"\dt+", r"\dv+"):
        listed = psql.says("--command", command)
        check(f"psql tells what relations are ({command})", "one row a" in listed, listed)
    functions = psql.says("--command", r"\df")
    check("psql lists functions", "vector_magnitude" in functions and "SETOF record" in functions, functions)
    text = psql.says("--command", r"\sv swings")
    check("psql shows a view's text", "FROM strokes" in text, text)
    for command in (r"\dn+", r"\du", r"\l+", r"\dp", r"\db", r"\df+", r"\d+ swings", r"\di", r"\dT"):
        psql.says("--command", command)
    check("psql lists schemas", "public" in psql.says("--command", r"\dn"))
    check("psql lists databases", "volant" in psql.says("--command", r"\l"))
    script = psql.says(
        "--tuples-only", "--no-align", "--command", "BEGIN; SET TimeZone = 'UTC'; SELECT 1; SELECT count(*) FROM frames; COMMIT"
    )
    lines = script.split()
    check("psql runs a script", lines[:4] == ["BEGIN", "SET", "1", lines[3]] and int(lines[3]) > 1000, script)
    wrong = psql.run("--command", "SELECT nothing FROM frames")
    check("an error says what and where", wrong.returncode == 1 and "nothing" in wrong.stderr, wrong.stderr)
    written = psql.run("--command", "DELETE FROM frames")
    check("nothing is written", written.returncode == 1 and "only reads" in written.stderr, written.stderr)


def given_up(psql: Psql, service: Service) -> None:
    """Ctrl-C in psql sends a cancel request over a connection of its own."""
    nothing_yet = "SELECT count(*) FROM frames a CROSS JOIN frames b CROSS JOIN frames c WHERE a.gyro_x + b.gyro_x = c.gyro_x"
    for statement in (nothing_yet, ENDLESS.format(0)):
        process = subprocess.Popen(
            [*psql.command, "--command", statement], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_for_running(service, 1)
        # Rows of the second are on their way.
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
        wait_for_running(service, 0)
        check("psql says that it was given up", "cancel" in said.lower(), said)


def wait_for_running(service: Service, statements: int) -> None:
    began = time.monotonic()
    while True:
        lines = service.metrics().splitlines()
        running_now = [float(line.split()[-1]) for line in lines if line.startswith("volant_query_running ")]
        if running_now == [float(statements)]:
            return
        check(f"{statements} statements run", time.monotonic() - began < 30, running_now)
        time.sleep(0.05)


def by_driver(url: str, service: Service) -> None:
    values = [
        ("SELECT count(*) FROM frames WHERE session_id = %s AND sensor = %s", (1, "wrist")),
        ("SELECT %s::float8 * 2", (1.25,)),
        ("SELECT %s::text", ("羽毛球 ' \" \\",)),
        ("SELECT %s::bigint + 1", (2**40,)),
        ("SELECT %s::boolean", (True,)),
        ("SELECT count(*) FROM sessions WHERE to_timestamp_micros(started_at_us) > %s", (datetime.datetime(2020, 1, 1),)),
        ("SELECT coalesce(%s::text, 'nothing')", (None,)),
    ]
    expected = [None, 2.5, "羽毛球 ' \" \\", 2**40 + 1, True, 2, "nothing"]
    with psycopg.connect(url) as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            for (statement, value), right in zip(values, expected):
                # The second time by name.
                for prepare in (False, True):
                    (answer,) = cursor.execute(statement, value, prepare=prepare).fetchone()
                    if right is None:
                        right = service.sql("SELECT count(*) AS n FROM frames WHERE session_id = 1 AND sensor = 'wrist'")[0]["n"]
                    check(f"{statement} (binary {binary})", answer == right and type(answer) is type(right), answer)
            for question in QUESTIONS:
                cursor.execute(question)
                names = [column.name for column in cursor.description]
                rows = [dict(zip(names, row)) for row in cursor.fetchall()]
                check(f"{question}: as `volant sql` answers (binary {binary})", rows == service.sql(question), rows[:2])
        connection.rollback()
        for statement, code in [("SELEC 1", "42601"), ("SELECT * FROM nothing", "42000"), ("CREATE TABLE t (a int)", "25006")]:
            try:
                connection.execute(statement)
                sys.exit(f"FAILED: {statement} was answered")
            except psycopg.Error as error:
                check(f"{statement}: its code", error.sqlstate == code, (error.sqlstate, error))
                connection.rollback()
        check("the connection goes on", connection.execute("SELECT 1").fetchone() == (1,))


# How clients look around, each construct once: (statement, rows, or `None` for some).
LOOKING_AROUND = [
    # Keys, as JDBC unfolds them, and what they refer to.
    (
        "SELECT found.name, found.place FROM (SELECT c.relname AS name, (information_schema._pg_expandarray(i.indkey)).n AS place,"
        " information_schema._pg_expandarray(i.indkey) AS keys, a.attnum AS number FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid JOIN pg_catalog.pg_index i ON i.indrelid = c.oid"
        " WHERE c.relname = 'strokes' AND i.indisprimary) found WHERE found.number = (found.keys).x",
        [],
    ),
    (
        "SELECT con.conname FROM pg_catalog.pg_constraint con, pg_catalog.pg_class c, pg_catalog.pg_attribute a,"
        " pg_catalog.generate_series(1, 32) place(n) WHERE con.conrelid = c.oid AND a.attrelid = c.oid"
        " AND a.attnum = con.conkey[place.n] AND c.relname = 'strokes'",
        [],
    ),
    # Types whose input is a function's number; row types only of relations that are such.
    ("SELECT t.typname FROM pg_type t WHERE t.typinput = 'array_in'::regproc AND t.typname = '_int4'", [("_int4",)]),
    ("SELECT t.typname FROM pg_type t JOIN pg_proc p ON p.oid = t.typreceive WHERE p.proname = 'int8recv'", [("int8",)]),
    (
        "SELECT t.typname FROM pg_type t WHERE t.typname = 'float8' AND (t.typrelid = 0 OR"
        " (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid))",
        [("float8",)],
    ),
    # Comments, by the table of them and by function.
    (
        "SELECT d.description FROM pg_class c LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = 0"
        " AND d.classoid = 'pg_class'::regclass WHERE c.relname = 'players'",
        [("one row a player, by number",)],
    ),
    ("SELECT col_description('frames'::regclass, 1), obj_description('frames'::regclass)", None),
    # The same name twice, a value that only the second placeholder has, settings.
    ("SELECT NULL, NULL, 1, 1 FROM pg_class LIMIT 1", [(None, None, 1, 1)]),
    ("SELECT current_setting('TimeZone'), setting FROM pg_settings WHERE name = 'max_index_keys'", [("UTC", "32")]),
    (
        "SELECT data_type FROM information_schema.columns WHERE table_name = 'strokes' AND column_name = 'confidence'",
        [("double precision",)],
    ),
    ("SELECT count(*) > 0 FROM pg_views WHERE viewname = 'swings' AND definition LIKE '%strokes%'", [(True,)]),
]


def by_looking_around(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement, right in LOOKING_AROUND:
            rows = connection.execute(statement).fetchall()
            check(statement, rows == right if right is not None else None not in rows[0], rows)
        # Numbers of placeholders need not all stand in a statement.
        answer = connection.pgconn.exec_params(b"SELECT $2::bigint + 1", [b"no number", b"41"])
        check("a placeholder that is not used", answer.get_value(0, 0) == b"42", answer.error_message)


# Lists of which the driver does not say the type, as text.
LISTS = [
    ("SELECT count(*) FROM frames WHERE sensor = ANY(%s)", ["wrist", "racket"], "sensor IN ('wrist', 'racket')"),
    ("SELECT count(*) FROM frames WHERE sensor <> ALL(%s)", ["wrist"], "sensor <> 'wrist'"),
    ("SELECT count(*) FROM frames WHERE sensor = ANY(%s::text[])", ["wrist", "a,b"], "sensor = 'wrist'"),
    ("SELECT count(*) FROM frames WHERE session_id = ANY(%s)", [1, 7], "session_id IN (1, 7)"),
]


# What PostgreSQL's users write in ways of its own, and what it answers.
FORMS = [
    ("SELECT to_char(to_timestamp_micros(1767520859999405), 'FMDD Mon YYYY HH24:MI:SS.US')", ("4 Jan 2026 10:00:59.999405",)),
    ("SELECT current_user, current_schema, current_catalog", ("postgres", "public", "volant")),
    ("SELECT localtimestamp > timestamp '2026-01-01'", (True,)),
    ("SELECT sensor FROM frames ORDER BY sensor OFFSET 1 ROWS FETCH FIRST ROW ONLY", ("racket",)),
    ("SELECT EXISTS (SELECT * FROM frames WHERE sensor = 'wrist'), NOT EXISTS (SELECT 1 FROM frames)", (True, False)),
    ("SELECT variance(x) FROM (VALUES (1), (2), (3)) AS t(x)", (1.0,)),
]


def by_forms(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement, right in FORMS:
            rows = connection.execute(statement).fetchall()
            check(statement, rows == [right], rows)
        for statement, said in [
            ("SELECT to_char(now(), 'YYYY RM')", "RM"),
            ("SELECT count(*) FROM frames TABLESAMPLE SYSTEM (1)", "TABLESAMPLE"),
        ]:
            try:
                rows = connection.execute(statement).fetchall()
                check(f"{statement} is refused", False, rows)
            except psycopg.Error as error:
                check(f"{statement} is refused", said in str(error), error)


async def by_asyncpg(url: str, service: Service) -> None:
    """Asks the server for the type of every value, lists among them, and sends all of them in binary."""
    connection = await asyncpg.connect(url)
    for statement, values, condition in [
        ("session_id = any($1)", ([1, 7],), "session_id IN (1, 7)"),
        ("sensor = any($1) AND session_id = $2", (["wrist", "racket"], 1), "sensor IN ('wrist', 'racket') AND session_id = 1"),
        ("session_id <> all($1)", ([1],), "session_id <> 1"),
        ("acc_x > $1 AND sensor = any($2::text[])", (0.5, ["wrist"]), "acc_x > 0.5 AND sensor = 'wrist'"),
    ]:
        right = service.sql(f"SELECT count(*) AS n FROM frames WHERE {condition}")[0]["n"]
        found = await connection.fetchval(f"SELECT count(*) FROM frames WHERE {statement}", *values)
        check(f"asyncpg: {statement}", found == right and right > 0, found)
    lists = await connection.fetchval("SELECT array_agg(DISTINCT sensor ORDER BY sensor) FROM frames WHERE session_id = any($1)", [1])
    check("asyncpg: a list comes back", "wrist" in lists and lists == sorted(lists), lists)
    async with connection.transaction():
        rows = [row async for row in connection.cursor("SELECT seq FROM frames LIMIT 500")]
    check("asyncpg: a cursor", len(rows) == 500, len(rows))
    await connection.close()


def by_copy(psql: Psql, url: str, service: Service) -> None:
    delay = "CASE WHEN stroke_index > 0 THEN delay_wrist_racket_ms END AS delay"
    question = f"SELECT stroke, session_id, {delay} FROM strokes ORDER BY session_id, stroke_index"
    right = [tuple(row.values()) for row in service.sql(question)]
    check("there are values and NULL", right and any(row[2] is None for row in right), right)
    lines = psql.says("--command", rf"\copy ({question}) TO STDOUT (FORMAT csv, HEADER)").splitlines()
    check("a CSV by psql", lines[0] == "stroke,session_id,delay" and len(lines) == 1 + len(right), lines[:3])
    check("nothing for NULL", [line.endswith(",") for line in lines[1:]] == [row[2] is None for row in right], lines[:3])
    counted = psql.says("--command", rf"\copy ({question}) TO '/dev/null'").strip()
    check("rows are counted", counted == f"COPY {len(right)}", counted)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.cursor()
        for form in ("text", "binary"):
            with cursor.copy(f"COPY ({question}) TO STDOUT (FORMAT {form})") as copy:
                copy.set_types(["text", "int8", "float8"])
                rows = list(copy.rows())
            check(f"COPY as {form}", rows == right, rows[:2])
        with cursor.copy("COPY (SELECT stroke FROM strokes WHERE false) TO STDOUT (FORMAT binary)") as copy:
            check("no rows, and the end of them", list(copy.rows()) == [])
        whole = service.sql("SELECT count(*) AS n FROM frames")[0]["n"]
        with cursor.copy("COPY frames (session_id, sensor) TO STDOUT") as copy:
            check("a table's columns", sum(1 for _ in copy.rows()) == whole)
        for statement, code in [
            # More than one batch of rows has gone when the division fails.
            ("COPY (SELECT 1 / (row_number() OVER () - 10000) FROM frames) TO STDOUT", "22000"),
            ("COPY strokes FROM STDIN", "25006"),
            ("COPY strokes TO '/tmp/strokes'", "25006"),
            ("COPY strokes TO STDOUT (FORMAT parquet)", "0A000"),
        ]:
            try:
                with cursor.copy(statement) as copy:
                    for _ in copy:
                        pass
                sys.exit(f"FAILED: {statement} went to its end")
            except psycopg.Error as error:
                check(f"{statement}: its code", error.sqlstate == code, (error.sqlstate, error))
            check("the connection goes on", cursor.execute("SELECT 1").fetchone() == (1,))
        for statement, values, condition in LISTS:
            (count,) = cursor.execute(statement, (values,)).fetchone()
            right = service.sql(f"SELECT count(*) AS n FROM frames WHERE {condition}")[0]["n"]
            check(f"{statement} of {values}", count == right > 0, (count, right))


def by_cursor(psql: Psql, url: str, service: Service) -> None:
    """Answers by portions, as psycopg and SQLAlchemy ask for them."""
    question = "SELECT sensor, seq, gyro_x FROM frames WHERE session_id = {} ORDER BY sensor, seq"
    right = [tuple(row.values()) for row in service.sql(question.format(1))]
    with psycopg.connect(url) as connection:
        for binary in (False, True):
            with connection.cursor(name="season", binary=binary) as cursor:
                cursor.execute(question.format("%s"), (1,))
                names = [column.name for column in cursor.description]
                check("a cursor's columns", names == ["sensor", "seq", "gyro_x"], names)
                rows = cursor.fetchmany(7)
                cursor.itersize = 1000
                rows += list(cursor)
                same = len(rows) == len(right) and all(row[:2] == other[:2] for row, other in zip(rows, right, strict=True))
                check("a cursor's rows", same, rows[:3])
                check("nothing is left", cursor.fetchmany(7) == [])
        # Two at once, in turns.
        with connection.cursor(name="a") as first, connection.cursor(name="b") as second:
            first.execute("SELECT x FROM generate_series(1, 20000) t(x) ORDER BY x")
            second.execute("SELECT x FROM generate_series(1, 20000) t(x) WHERE x > %s ORDER BY x", (10000,))
            turns = [(first.fetchmany(4), second.fetchone()) for _ in range(3)]
            check("in turns", turns[2] == ([(9,), (10,), (11,), (12,)], (10003,)), turns)
            connection.commit()
            try:
                first.fetchone()
                sys.exit("FAILED: a cursor outlived its transaction")
            except psycopg.errors.InvalidCursorName:
                connection.rollback()
        with connection.cursor(name="held", withhold=True) as cursor:
            cursor.execute("SELECT x FROM generate_series(1, 20000) t(x) ORDER BY x")
            connection.commit()
            check("a cursor that is held", cursor.fetchone() == (1,) and cursor.fetchmany(20000)[-1] == (20000,))
        try:
            with connection.cursor(name="back", scrollable=True) as cursor:
                cursor.execute("SELECT 1")
            sys.exit("FAILED: a cursor that goes back")
        except psycopg.errors.FeatureNotSupported:
            connection.rollback()
    said = psql.says(
        "--tuples-only",
        "--no-align",
        "--command",
        "BEGIN; DECLARE c CURSOR FOR SELECT x FROM generate_series(1, 5) t(x); FETCH 2 FROM c; FETCH ALL FROM c; CLOSE c; COMMIT",
    )
    check("cursors in a script", [line for line in said.split() if line.isdigit()] == ["1", "2", "3", "4", "5"], said)
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect().execution_options(stream_results=True, max_row_buffer=500) as connection:
        parts = [len(part) for part in connection.execute(sqlalchemy.text(question.format(1))).partitions(1000)]
        check("SQLAlchemy by portions", sum(parts) == len(right) and max(parts) == 1000, parts)
    engine.dispose()


def statements_end(url: str, service: Service) -> None:
    """Statements that are cancelled while their rows come, or whose client is killed."""
    with psycopg.connect(url, autocommit=True) as connection:
        seen = 0
        try:
            for _ in connection.cursor().stream(ENDLESS.format("%s"), (0,)):
                seen += 1
                if seen == 10_000:
                    connection.cancel()
            sys.exit("FAILED: the statement went to its end")
        except psycopg.errors.QueryCanceled:
            check("rows came before all were made", seen >= 10_000, seen)
        check("the connection goes on", connection.execute("SELECT 1").fetchone() == (1,))
    wait_for_running(service, 0)
    for what, values in [("prepared", "(-1,)"), ("plain", "None")]:
        statement = LONG.format("%s" if what == "prepared" else "-1")
        program = f"import psycopg; psycopg.connect({url!r}, autocommit=True).execute({statement!r}, {values})"
        client = subprocess.Popen([sys.executable, "-c", program])
        wait_for_running(service, 1)
        client.kill()
        client.wait()
        # Long before its time limit.
        wait_for_running(service, 0)


def by_adbc_and_connectorx(url: str, service: Service) -> None:
    with adbc.connect(url) as connection:
        with connection.cursor() as cursor:
            for question in QUESTIONS:
                cursor.execute(question)
                rows = cursor.fetch_arrow_table().to_pylist()
                check(f"{question}: ADBC", rows == service.sql(question), rows[:2])
            cursor.execute("SELECT count(*) FROM frames WHERE session_id = $1 AND sensor = $2", (1, "wrist"))
            check("ADBC: values", cursor.fetchone()[0] > 1000)
        schema = connection.adbc_get_table_schema("strokes")
        check("ADBC: a table's types", (str(schema.field("session_id").type), str(schema.field("stroke").type)) == ("int64", "string"))
        (catalog, *_) = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        tables = {table["table_name"]: table for table in catalog["catalog_db_schemas"][0]["db_schema_tables"]}
        remarks = {column["column_name"]: column["remarks"] for column in tables["frames"]["table_columns"]}
        check("ADBC: comments", remarks["gyro_x"] == "angular velocity x, °/s; null: not finite", remarks)
        check("ADBC: views", tables["swings"]["table_type"] == "view", tables.keys())
    # Polars' own way, over partitions of a key, by the four protocols that connectorx has.
    question = "SELECT session_id, t_ns, gyro_x FROM frames WHERE sensor = 'wrist'"
    right = sorted(tuple(row.values()) for row in service.sql(question))
    for protocol in ("binary", "csv", "cursor", "simple"):
        frame = polars.read_database_uri(
            question, f"{url}?cxprotocol={protocol}", engine="connectorx", partition_on="session_id", partition_num=2
        )
        rows = sorted(frame.rows())
        same = len(rows) == len(right) and all(
            a[:2] == b[:2] and abs(a[2] - b[2]) <= 1e-6 * abs(b[2]) for a, b in zip(rows, right)
        )
        check(f"connectorx, {protocol}", same, rows[:2])


def by_sqlalchemy(url: str, service: Service) -> None:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    inspector = sqlalchemy.inspect(engine)
    check("schemas", "public" in inspector.get_schema_names(), inspector.get_schema_names())
    tables = set(inspector.get_table_names())
    check("tables", {"frames", "strokes", "results", "sessions", "devices", "players"} <= tables, tables)
    views = set(inspector.get_view_names())
    check("views", {"swings", "stroke_frames", "data_quality"} <= views, views)
    columns = {column["name"]: column["type"] for column in inspector.get_columns("frames")}
    check("columns", isinstance(columns["session_id"], sqlalchemy.BigInteger), columns)
    check("columns", isinstance(columns["gyro_x"], sqlalchemy.REAL), columns)
    check("columns", isinstance(columns["sensor"], sqlalchemy.TEXT), columns)
    comments = {column["name"]: column["comment"] for column in inspector.get_columns("frames")}
    check("comments", comments["gyro_x"] == "angular velocity x, °/s; null: not finite", comments)
    check("a table's comment", inspector.get_table_comment("players")["text"] == "one row a player, by number")
    check("no keys", inspector.get_pk_constraint("strokes")["constrained_columns"] == [])
    check("no indexes", inspector.get_indexes("strokes") == [] and inspector.get_foreign_keys("strokes") == [])
    check("a view's text", "FROM strokes" in inspector.get_view_definition("swings"))
    everything = sqlalchemy.MetaData()
    everything.reflect(engine)
    check("everything reflected", {"frames", "strokes", "sessions"} <= set(everything.tables), everything.tables)
    strokes = sqlalchemy.Table("strokes", sqlalchemy.MetaData(), autoload_with=engine)
    count = sqlalchemy.func.count().label("n")
    question = (
        sqlalchemy.select(strokes.c.stroke, count)
        .where(strokes.c.session_id == 1)
        .group_by(strokes.c.stroke)
        .order_by(strokes.c.stroke)
    )
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(question)]
    plain = service.sql("SELECT stroke, count(*) AS n FROM strokes WHERE session_id = 1 GROUP BY stroke ORDER BY stroke")
    check("a chart's question", rows and rows == [(row["stroke"], row["n"]) for row in plain], rows)
    engine.dispose()


def by_rights(volant: str, data: Path, binary: str) -> None:
    tokens = {}
    for scope in ("sql", "sessions:read"):
        made = subprocess.run(
            [volant, "tokens", "create", "--data-dir", str(data), "--key", "--scope", scope, "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        tokens[scope] = json.loads(made.stdout)["token"]
    with running(volant, data, "--auth", "token", postgres=True) as service:
        psql = Psql(binary, service.postgres)
        ask = ["--tuples-only", "--no-align", "--command", "SELECT 7"]
        for what, password in [("no token", ""), ("a wrong token", "nonsense"), ("another right", tokens["sessions:read"])]:
            done = psql.run(*ask, password=password)
            check(f"{what}: refused", done.returncode == 2, done.stdout + done.stderr)
        done = psql.run(*ask, password=tokens["sql"])
        check("a key for SQL as password", done.stdout.strip() == "7", done.stdout + done.stderr)


def main(volant: str, binary: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running(volant, data, postgres=True) as service:
            service.play(2, 30, "--seed", "5")
            service.wait_for_results(2)
            psql = Psql(binary, service.postgres)
            url = f"postgresql://somebody@{service.postgres}"
            by_psql(psql)
            by_driver(url, service)
            by_looking_around(url)
            by_forms(url)
            asyncio.run(by_asyncpg(url, service))
            by_copy(psql, url, service)
            by_cursor(psql, url, service)
            by_adbc_and_connectorx(url, service)
            by_sqlalchemy(url, service)
            given_up(psql, service)
            statements_end(url, service)
        by_rights(volant, data, binary)
    print("postgres: psql, psycopg, asyncpg, ADBC, connectorx and SQLAlchemy agree with the service")


main(sys.argv[1], sys.argv[2])
