-- Every statement over strokes and results asks for the files of all published analyses. In the table they stand behind the
-- analysis itself, hundreds of kilobytes that SQLite reads on its way to them; in this index they are all there is.
CREATE INDEX results_by_files
    ON results (session_id, created_at_us, strokes_path, strokes_bytes, result_path, result_bytes);
PRAGMA user_version = 5;
