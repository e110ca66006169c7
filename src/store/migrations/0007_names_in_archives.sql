-- What archives and receipts call this catalog's service; one that no service ran on has a name too, or players of two of them would be
-- the same to whoever takes both.
INSERT INTO settings (name, value) VALUES ('service_id', lower(hex(randomblob(20)))) ON CONFLICT DO NOTHING;
-- Of an erased player who came with an archive: under which name, which says the archive's service and the number there.
ALTER TABLE erasures ADD COLUMN archived_as TEXT;
CREATE INDEX erasures_by_archive ON erasures (archived_as) WHERE archived_as IS NOT NULL;
PRAGMA user_version = 7;
