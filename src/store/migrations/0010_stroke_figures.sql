-- What of a published analysis later sessions of the player are compared with: some per cent of its length, which is read for each new
-- session. Valid while the result is of that instant; made when it is first asked for.
CREATE TABLE stroke_figures (
    session_id     INTEGER PRIMARY KEY REFERENCES sessions,
    analysed_at_us INTEGER NOT NULL,
    figures        TEXT NOT NULL
);
PRAGMA user_version = 10;
