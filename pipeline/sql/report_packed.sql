-- Where the shards keep the images of some keys.
SELECT key, shard, "offset", size
FROM read_parquet($index)
WHERE key IN (SELECT unnest($keys))
ORDER BY key
