-- The worst value of $score among its best $top of all rows with the score, without a sort: a
-- histogram finds the bucket in which the place lies, and only values in there are counted one by
-- one. $sign is 1 where high is good and -1 where low is.
WITH scored AS (
    SELECT
        $sign * CASE $score
            WHEN 'similarity' THEN similarity
            WHEN 'nsfw' THEN nsfw
            WHEN 'watermark' THEN watermark
            WHEN 'aesthetic' THEN aesthetic
        END AS value
    FROM read_parquet($ingest)
),
spread AS (
    SELECT
        count(value) AS rows,
        min(value) AS lowest,
        greatest(max(value) - min(value), 1e-300) AS width
    FROM scored
),
bucketed AS (
    SELECT value, least(floor(65536 * ((value - lowest) / width)), 65535) AS bucket
    FROM scored, spread
    WHERE value IS NOT NULL
),
histogram AS (SELECT bucket, count(*) AS rows FROM bucketed GROUP BY bucket),
reached AS (SELECT bucket, rows, sum(rows) OVER (ORDER BY bucket DESC) AS so_far FROM histogram),
found AS (
    SELECT bucket, so_far - reached.rows AS before
    FROM reached, spread
    WHERE so_far >= ceil($top * spread.rows)
    ORDER BY bucket DESC
    LIMIT 1
),
inside AS (
    SELECT value, count(*) AS rows
    FROM bucketed
    SEMI JOIN found USING (bucket)
    GROUP BY value
),
counted AS (SELECT value, sum(rows) OVER (ORDER BY value DESC) AS so_far FROM inside)
SELECT (SELECT rows FROM spread) AS rows, (
    SELECT $sign * max(value)
    FROM counted
    WHERE so_far + (SELECT before FROM found) >= (SELECT ceil($top * rows) FROM spread)
) AS bound
