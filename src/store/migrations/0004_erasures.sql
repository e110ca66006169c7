-- Players who were erased: what is left is a number, so that no archive brings them back, and what was done.
CREATE TABLE erasures (
    user_id       INTEGER PRIMARY KEY,
    erased_at_us  INTEGER NOT NULL,
    -- JSON: how many rows of which table, and how many frames.
    counts        TEXT NOT NULL,
    -- JSON array of files below the data folder: those that are to be deleted until done_at_us is set.
    files         TEXT NOT NULL,
    done_at_us    INTEGER
);
-- When the frames of a session were given up because of their age; its strokes and result stay.
ALTER TABLE sessions ADD COLUMN frames_expired_at_us INTEGER;
CREATE INDEX sessions_by_frames ON sessions (frames_sha256) WHERE frames_sha256 IS NOT NULL;
PRAGMA user_version = 4;
