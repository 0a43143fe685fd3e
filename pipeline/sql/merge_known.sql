-- The pairs of the second corpus that the first has already, and how that is known.
WITH judged AS (
    SELECT
        uid,
        CASE
            WHEN uid IN (SELECT uid FROM read_parquet($first) WHERE verdict = 'kept')
                THEN 'duplicate_pair'
            WHEN sha256 IN (SELECT sha256 FROM read_parquet($first) WHERE verdict = 'kept')
                THEN 'duplicate_image'
            WHEN phash IN (SELECT phash FROM read_parquet($near)) THEN 'near_duplicate_image'
        END AS why
    FROM read_parquet($second)
    WHERE verdict = 'kept'
)
SELECT uid, why FROM judged WHERE why IS NOT NULL ORDER BY uid
