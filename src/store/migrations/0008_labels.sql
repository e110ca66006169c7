-- What people say was played: one row a swing, whatever an analysis found there. It is the player's, and goes with the session.
CREATE TABLE labels (
    session_id     INTEGER NOT NULL REFERENCES sessions,
    -- ns since session start, as in strokes: where the label points to, and the swing around it if somebody marked that.
    impact_ns      INTEGER NOT NULL,
    start_ns       INTEGER,
    end_ns         INTEGER,
    -- Of whatever vocabulary; 'other' says that there was no stroke.
    stroke         TEXT NOT NULL,
    -- As in a recording set: 'clear', 'clean', 'soft' count; 'ambiguous', 'cut', 'unclear' do not; 'window'.
    quality        TEXT NOT NULL,
    -- 'player', 'admin', 'key' or 'import'
    labelled_by    TEXT NOT NULL,
    labelled_at_us INTEGER NOT NULL,
    PRIMARY KEY (session_id, impact_ns)
) WITHOUT ROWID;
PRAGMA user_version = 8;
