-- Which fetched image overlaps which image of an evaluation set, and how that is known: the same
-- bytes, or hashes that are near.
WITH found AS (
    SELECT fetched.url_key, evaluation.set, evaluation.key, 'sha256' AS how, 0 AS distance
    FROM read_parquet($fetch) AS fetched
    JOIN read_parquet($evaluation) AS evaluation USING (sha256)
    WHERE fetched.reason IS NULL
    UNION ALL
    SELECT url_key, set, key, 'phash', distance FROM read_parquet($near)
)
SELECT
    url_key,
    set,
    key,
    max(how) AS how,
    CAST(min(distance) AS INTEGER) AS distance
FROM found
GROUP BY url_key, set, key
ORDER BY url_key, set, key
