-- Place in the input against place in the shards, as shares of all: $top pairs chosen by a hash.
WITH placed AS (
    SELECT uid, row, row_number() OVER (ORDER BY key) AS place, count(*) OVER () AS n
    FROM pairs
    WHERE verdict = 'kept' AND shard IN (SELECT unnest($shards))
),
whole AS (SELECT greatest(max(row), 1) AS last FROM pairs)
SELECT row / whole.last AS input, place / n AS shards
FROM placed, whole
ORDER BY md5_number_lower(uid), row
LIMIT $top
