-- The pairs in the shards with their captions, in the order of their keys.
SELECT key, text FROM pairs WHERE key IS NOT NULL ORDER BY key
