-- Times are µs since 1970 UTC, ids are integers from 1, JSON is text: the same statements run on other databases.
CREATE TABLE users (
    user_id       INTEGER PRIMARY KEY AUTOINCREMENT,
    openid        TEXT NOT NULL UNIQUE,
    -- The number that the WeChat-user row had in the replaced system; new users have none.
    wx_user_id    INTEGER UNIQUE,
    created_at_us INTEGER NOT NULL
);
CREATE TABLE devices (
    device_code   TEXT PRIMARY KEY,
    firmware      TEXT,
    first_seen_us INTEGER NOT NULL,
    last_seen_us  INTEGER NOT NULL
);
CREATE TABLE bindings (
    user_id       INTEGER NOT NULL REFERENCES users,
    device_code   TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_code)
);
CREATE TABLE sessions (
    session_id           INTEGER PRIMARY KEY AUTOINCREMENT,
    -- 'session' was started by a user; 'collection' holds what a device sent of its own accord.
    kind                 TEXT NOT NULL,
    device_code          TEXT NOT NULL,
    group_code           TEXT NOT NULL,
    user_id              INTEGER REFERENCES users,
    status               TEXT NOT NULL,
    -- Why it ended without a result.
    reason               TEXT,
    started_at_us        INTEGER NOT NULL,
    ended_at_us          INTEGER,
    changed_at_us        INTEGER NOT NULL,
    -- The sealed file: revision 0 means not sealed yet.
    revision             INTEGER NOT NULL DEFAULT 0,
    sealed_rows          INTEGER NOT NULL DEFAULT 0,
    frames_path          TEXT,
    frames_bytes         INTEGER,
    frames_sha256        TEXT,
    -- Estimated error between sensor clocks, ns.
    sync_error_ns        INTEGER,
    -- 1: no frame is accepted any more and the write-ahead log may forget the session.
    closed               INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sessions_by_device ON sessions (device_code, session_id);
CREATE INDEX sessions_by_user ON sessions (user_id, session_id);
CREATE INDEX sessions_unfinished ON sessions (closed, status);
-- One analysis of one revision of a session; its number is the analysis id.
CREATE TABLE jobs (
    job_id         INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id     INTEGER NOT NULL REFERENCES sessions,
    revision       INTEGER NOT NULL,
    state          TEXT NOT NULL,
    lease_owner    TEXT,
    lease_until_us INTEGER,
    attempts       INTEGER NOT NULL DEFAULT 0,
    error          TEXT,
    created_at_us  INTEGER NOT NULL,
    UNIQUE (session_id, revision)
);
CREATE INDEX jobs_open ON jobs (state, job_id);
CREATE TABLE results (
    session_id    INTEGER PRIMARY KEY REFERENCES sessions,
    analysis_id   INTEGER NOT NULL UNIQUE,
    revision      INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    analysis      TEXT NOT NULL,
    -- The Parquet files of this analysis, relative to the data folder.
    strokes_path  TEXT NOT NULL,
    strokes_bytes INTEGER NOT NULL,
    result_path   TEXT NOT NULL,
    result_bytes  INTEGER NOT NULL
);
CREATE TABLE outbox (
    notification_id TEXT PRIMARY KEY,
    user_id         INTEGER NOT NULL REFERENCES users,
    session_id      INTEGER NOT NULL REFERENCES sessions,
    analysis_id     INTEGER NOT NULL,
    payload         TEXT NOT NULL,
    created_at_us   INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    delivered_at_us INTEGER
);
CREATE INDEX outbox_owed ON outbox (user_id, notification_id) WHERE delivered_at_us IS NULL;
PRAGMA user_version = 1;
