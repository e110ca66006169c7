-- Analyses of sealed sessions by another pipeline than the published one, side by side with it; one of them may take its
-- place. A row is first the order, then the answer.
CREATE TABLE candidates (
    session_id        INTEGER NOT NULL REFERENCES sessions,
    -- Name of the pipeline, and the hash of all that it computes with: file, parameters, model.
    pipeline          TEXT NOT NULL,
    definition_sha256 TEXT NOT NULL,
    -- Of the session's frames that were analysed; null before.
    revision          INTEGER,
    -- 'queued', 'running', 'done', 'failed'; 'switching' while it takes the published one's place
    state             TEXT NOT NULL,
    lease_owner       TEXT,
    lease_until_us    INTEGER,
    attempts          INTEGER NOT NULL DEFAULT 0,
    error             TEXT,
    ordered_at_us     INTEGER NOT NULL,
    created_at_us     INTEGER,
    analysis          TEXT,
    -- When it last took the published one's place.
    published_at_us   INTEGER,
    PRIMARY KEY (pipeline, session_id)
);
CREATE INDEX candidates_open ON candidates (state, pipeline, session_id) WHERE state IN ('queued', 'running', 'switching');
CREATE INDEX candidates_by_session ON candidates (session_id);
-- The pipeline that analyses a player's sessions; null: everybody's.
ALTER TABLE users ADD COLUMN pipeline TEXT;
PRAGMA user_version = 3;
