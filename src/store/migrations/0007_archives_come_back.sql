-- What archives and receipts call this catalog's service; one that no service ran on has a name too, or players of two of them would be
-- the same to whoever takes both.
INSERT INTO settings (name, value) VALUES ('service_id', lower(hex(randomblob(20)))) ON CONFLICT DO NOTHING;
-- Of an erased player who came with an archive: under which name, which says the archive's service and the number there.
ALTER TABLE erasures ADD COLUMN archived_as TEXT;
CREATE INDEX erasures_by_archive ON erasures (archived_as) WHERE archived_as IS NOT NULL;
-- When frames that were given up came back with an archive: their age counts from then.
ALTER TABLE sessions ADD COLUMN brought_back_at_us INTEGER;
PRAGMA user_version = 7;
