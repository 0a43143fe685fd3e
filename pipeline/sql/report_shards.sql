-- $top shards, evenly spaced over all.
WITH placed AS (
    SELECT shard, row_number() OVER (ORDER BY shard) - 1 AS place, count(*) OVER () AS n
    FROM shards
)
SELECT shard FROM placed
WHERE place % greatest(CAST(ceil(n / $top) AS BIGINT), 1) = 0
ORDER BY shard
