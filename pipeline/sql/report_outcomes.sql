-- What came of the URLs, in all.
SELECT
    coalesce(reason, 'image stored') AS outcome,
    count(*) AS urls,
    round(100 * count(*) / sum(count(*)) OVER (), 2) AS "%",
    CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes
FROM read_parquet($provenance)
GROUP BY outcome
ORDER BY urls DESC, outcome
