-- From schema version 1 to 2: what agents ask of their nodes, as it stands in their first facts; null for nothing.
-- No row is written, so it takes a moment however many there are; it waits for appends under way, and they for it.
ALTER TABLE agents ADD COLUMN asks bytea;
