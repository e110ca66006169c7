-- Who may do what, where notices go besides sockets, and what devices upload under ids of their own.

-- Accounts. Of a secret only its hash is here: SHA-256 of tokens and pairing codes, which are random and long; argon2id of
-- passwords, which are neither. The one exception is the secret of a webhook, which signs and so must be read.
ALTER TABLE users ADD COLUMN language TEXT;
ALTER TABLE users ADD COLUMN nickname TEXT;
CREATE TABLE admins (
    name           TEXT PRIMARY KEY,
    password_hash  TEXT NOT NULL,
    created_at_us  INTEGER NOT NULL,
    changed_at_us  INTEGER NOT NULL,
    disabled_at_us INTEGER
);
CREATE TABLE tokens (
    -- Public name of the token; the secret part is not derivable from it.
    token_id        TEXT PRIMARY KEY,
    -- 'device', 'user', 'admin' (a login of the dashboard), 'api' (a key with scopes).
    kind            TEXT NOT NULL,
    token_hash      TEXT NOT NULL UNIQUE,
    device_code     TEXT,
    user_id         INTEGER REFERENCES users,
    admin_name      TEXT REFERENCES admins,
    -- Of keys: words separated by spaces.
    scopes          TEXT NOT NULL DEFAULT '',
    label           TEXT,
    created_by      TEXT NOT NULL,
    created_at_us   INTEGER NOT NULL,
    expires_at_us   INTEGER,
    last_used_at_us INTEGER,
    revoked_at_us   INTEGER
);
CREATE INDEX tokens_by_device ON tokens (device_code) WHERE device_code IS NOT NULL;
CREATE INDEX tokens_by_user ON tokens (user_id) WHERE user_id IS NOT NULL;
-- Proof that somebody holds a device: whoever has the code may bind the device once.
CREATE TABLE pairing_codes (
    code_hash     TEXT PRIMARY KEY,
    device_code   TEXT NOT NULL,
    created_by    TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    expires_at_us INTEGER NOT NULL,
    used_by       INTEGER REFERENCES users,
    used_at_us    INTEGER
);
CREATE TABLE device_groups (
    group_code    TEXT PRIMARY KEY,
    name          TEXT,
    created_at_us INTEGER NOT NULL
);
CREATE TABLE device_group_members (
    group_code    TEXT NOT NULL REFERENCES device_groups,
    device_code   TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    PRIMARY KEY (group_code, device_code)
);
CREATE INDEX groups_of_device ON device_group_members (device_code);
-- The address that the device itself registered for its own HTTP server.
ALTER TABLE devices ADD COLUMN ip_address TEXT;
ALTER TABLE devices ADD COLUMN ip_registered_at_us INTEGER;
CREATE TABLE audit_log (
    entry_id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us    INTEGER NOT NULL,
    -- 'admin:NAME', 'user:NUMBER', 'key:TOKEN_ID', 'device:CODE', 'operator' (somebody at the machine itself).
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    details  TEXT
);
-- Names and values of the service itself, such as the key that signs image addresses.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Uploads. A collection holds what a device sent under an id that is no session of ours.
ALTER TABLE sessions ADD COLUMN claimed_id TEXT;
CREATE INDEX sessions_by_claim ON sessions (claimed_id, device_code) WHERE claimed_id IS NOT NULL;
-- What `send_data1/` to `send_data3/` and a free-text `upload_sensor_data/` left.
CREATE TABLE form_entries (
    entry_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind          TEXT NOT NULL,
    user_id       INTEGER REFERENCES users,
    device_code   TEXT,
    content       TEXT NOT NULL,
    created_at_us INTEGER NOT NULL
);

-- Further channels of the outbox: a notice has one row for each target that it goes to.
CREATE TABLE webhooks (
    webhook_id     TEXT PRIMARY KEY,
    -- Null: notices of every user.
    user_id        INTEGER REFERENCES users,
    url            TEXT NOT NULL,
    secret         TEXT NOT NULL,
    created_by     TEXT NOT NULL,
    created_at_us  INTEGER NOT NULL,
    disabled_at_us INTEGER
);
CREATE TABLE deliveries (
    notification_id TEXT NOT NULL REFERENCES outbox,
    -- 'wechat' or 'webhook'.
    channel         TEXT NOT NULL,
    -- The webhook's id; the template's id.
    target          TEXT NOT NULL,
    -- 'owed', 'delivered', 'failed' (given up).
    state           TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_us INTEGER NOT NULL,
    done_at_us      INTEGER,
    PRIMARY KEY (notification_id, channel, target)
);
CREATE INDEX deliveries_owed ON deliveries (next_attempt_us) WHERE state = 'owed';
CREATE TABLE delivery_attempts (
    attempt_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    notification_id TEXT NOT NULL,
    -- 'socket', 'wechat' or 'webhook'.
    channel         TEXT NOT NULL,
    target          TEXT NOT NULL,
    at_us           INTEGER NOT NULL,
    -- 'delivered', or a stable word for what went wrong.
    outcome         TEXT NOT NULL,
    -- What the other side said, clipped; never a secret.
    detail          TEXT
);
CREATE INDEX attempts_of_notice ON delivery_attempts (notification_id);
-- A user who accepts a subscribe message once buys exactly one message: the ledger of what was granted and spent.
CREATE TABLE wechat_grants (
    grant_id        INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id         INTEGER NOT NULL REFERENCES users,
    template_id     TEXT NOT NULL,
    granted_at_us   INTEGER NOT NULL,
    spent_at_us     INTEGER,
    notification_id TEXT
);
CREATE INDEX grants_left ON wechat_grants (user_id, template_id) WHERE spent_at_us IS NULL;

-- 1: results are told to nobody, because the session was imported and is long over.
ALTER TABLE sessions ADD COLUMN silent INTEGER NOT NULL DEFAULT 0;
-- Figures that the replaced system stored. They may be its invented defaults (is_default = 1) and are shown only where there
-- are no frames to compute better ones from.
CREATE TABLE legacy_results (
    session_id     INTEGER PRIMARY KEY REFERENCES sessions,
    phase_delay    TEXT NOT NULL,
    energy_ratio   REAL,
    rom_data       TEXT NOT NULL,
    analysed_at_us INTEGER,
    is_default     INTEGER NOT NULL
);
-- What an import has taken, so that it can be gone on with: the row there, the row here.
CREATE TABLE imported (
    source    TEXT NOT NULL,
    kind      TEXT NOT NULL,
    source_id TEXT NOT NULL,
    our_id    TEXT NOT NULL,
    at_us     INTEGER NOT NULL,
    PRIMARY KEY (source, kind, source_id)
);
PRAGMA user_version = 2;
