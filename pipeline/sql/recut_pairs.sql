-- The pairs that are in new shards, numbered anew, as pairs/*.parquet holds them.
WITH found AS (
    SELECT DISTINCT ON (pairs.uid)
        pairs.* REPLACE (shards.key AS key, shards.shard AS shard, 'train' AS split)
    FROM read_parquet($pairs) AS pairs
    JOIN read_parquet($index) AS shards USING (uid)
    WHERE pairs.verdict = 'kept'
    ORDER BY pairs.uid, pairs.source, pairs.row
)
SELECT * REPLACE (row_number() OVER (ORDER BY rank, uid) - 1 AS row)
FROM found
ORDER BY row
