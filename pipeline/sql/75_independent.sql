-- As 48_independent.sql, after the download. The pairs of a query are those before the download
-- times the share of its tried pairs whose images are good, so the draws of then are cut down to
-- $cap; a draw that failed then fails again.
WITH counted AS (
    SELECT
        match.query_id,
        count(*) FILTER (dedupe.reason IS NULL) AS pool,
        count(images.row) AS tried,
        count(images.row) FILTER (images.reason IS NULL) AS good
    FROM read_parquet($match) AS match
    JOIN read_parquet($dedupe) AS dedupe USING (row)
    LEFT JOIN read_parquet($images) AS images USING (row)
    GROUP BY match.query_id
),
sizes AS (
    SELECT
        counted.query_id,
        $cap / (pool * good / tried) * 4294967296.0 AS bound,
        md5_number_lower(queries.words) AS query_key
    FROM counted
    JOIN read_parquet($queries) AS queries USING (query_id)
    WHERE good > 0
),
mixed AS (
    SELECT standing.row, sizes.bound, xor(standing.rank, sizes.query_key) AS a
    FROM read_parquet($match) AS match
    JOIN read_parquet($standing) AS standing USING (row)
    JOIN sizes USING (query_id)
),
stirred AS (SELECT row, bound, xor((a & 4294967295) * 2654435761, a >> 32) AS b FROM mixed),
drawn AS (
    SELECT row, bound, (xor(b, b >> 32) & 4294967295) * 2246822519 AS c FROM stirred
)
SELECT DISTINCT row
FROM drawn
WHERE CAST(xor(c, c >> 32) & 4294967295 AS DOUBLE) < bound
ORDER BY row
