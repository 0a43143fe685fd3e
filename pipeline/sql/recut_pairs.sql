-- The pairs that are in new shards, numbered anew, as pairs/*.parquet holds them; of equal pairs the
-- first source's, whose picture was taken.
-- all_pairs: a view with nth (of the source) and the columns of pairs.
WITH found AS (
    SELECT DISTINCT ON (all_pairs.uid)
        all_pairs.* EXCLUDE (nth) REPLACE (shards.key AS key, shards.shard AS shard)
    FROM all_pairs
    JOIN read_parquet($index) AS shards USING (uid)
    WHERE all_pairs.verdict = 'kept' AND all_pairs.split = 'train'
    ORDER BY all_pairs.uid, all_pairs.nth, all_pairs.row
)
SELECT * REPLACE (row_number() OVER (ORDER BY rank, uid) - 1 AS row)
FROM found
ORDER BY row
