-- What a volume may hold. Those that were made before have no limit.
ALTER TABLE volumes ADD COLUMN size_bytes INTEGER;
