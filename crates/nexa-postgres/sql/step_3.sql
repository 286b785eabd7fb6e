-- From schema version 2 to 3: a row of `events` may have several facts of one stream, one after another in each of its columns;
-- position and version are those of the last one (`row.rs`). Rows of one fact are as before, and nodes write no others until
-- all of them read these, so that no row changes.
COMMENT ON COLUMN events.link IS 'one link of 32 bytes a fact of the row';
