-- Of the rows that gave way to another its uid, of those in a shard their place there, in the order
-- of the input: made in one pass over everything, so that each file of pairs reads its own range and
-- no other.
WITH dropped AS (
    SELECT row, kept_row FROM read_parquet($dedupe) WHERE reason IS NOT NULL
    UNION ALL
    SELECT row, kept_row FROM read_parquet($images) WHERE reason IS NOT NULL
),
ends AS (
    SELECT
        dropped.row,
        ingest.uid AS duplicate_of,
        CAST(NULL AS VARCHAR) AS key,
        CAST(NULL AS VARCHAR) AS shard,
        CAST(NULL AS VARCHAR) AS split
    FROM dropped
    JOIN read_parquet($ingest) AS ingest ON ingest.row = dropped.kept_row
    UNION ALL
    SELECT row, NULL, key, shard, split FROM read_parquet($pack)
)
SELECT row, duplicate_of, key, shard, split FROM ends ORDER BY row
