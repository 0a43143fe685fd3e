-- The shards and what they hold.
SELECT
    shard,
    count(*) AS samples,
    CAST(sum(size) AS BIGINT) AS image_bytes,
    CAST(sum(text_size) AS BIGINT) AS text_bytes,
    min(key) AS first_key,
    max(key) AS last_key
FROM read_parquet($index)
GROUP BY shard
ORDER BY shard
