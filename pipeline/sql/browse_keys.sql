-- The pairs in the shards, in the order of their keys.
SELECT row, key FROM pairs WHERE key IS NOT NULL ORDER BY key
