-- A session's frames are sealed quickly, while somebody waits, and written again in fewer bytes when it closes. An archive may hold
-- either file: this is the sum of the one that is not in place.
ALTER TABLE sessions ADD COLUMN other_frames_sha256 TEXT;
CREATE INDEX sessions_by_other_frames ON sessions (other_frames_sha256) WHERE other_frames_sha256 IS NOT NULL;
PRAGMA user_version = 9;
