-- What came of the URLs over the time of the download, in $bins equal parts of it.
WITH answers AS (
    SELECT epoch(fetched_at) AS second, coalesce(reason, 'image stored') AS outcome, bytes
    FROM read_parquet($provenance)
    WHERE fetched_at IS NOT NULL
),
whole AS (
    SELECT min(second) AS first, greatest(max(second) - min(second), 0.001) AS length FROM answers
)
SELECT
    CAST(least(floor($bins * (answers.second - whole.first) / whole.length), $bins - 1) AS INTEGER)
        AS bin,
    answers.outcome,
    count(*) AS urls,
    CAST(coalesce(sum(answers.bytes), 0) AS BIGINT) AS bytes,
    any_value(whole.first) AS first,
    any_value(whole.length) AS length
FROM answers, whole
GROUP BY bin, outcome
ORDER BY bin, outcome
