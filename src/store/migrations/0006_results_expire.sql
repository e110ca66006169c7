-- When the strokes and the result of a session were given up because of their age; the session itself stays.
ALTER TABLE sessions ADD COLUMN results_expired_at_us INTEGER;
PRAGMA user_version = 6;
