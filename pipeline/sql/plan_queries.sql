-- How many queries have how many pairs.
SELECT pairs, count(*) AS queries
FROM (
    SELECT count(*) AS pairs
    FROM read_parquet($match) AS match
    JOIN read_parquet($dedupe) AS dedupe USING (row)
    WHERE dedupe.reason IS NULL
    GROUP BY match.query_id
)
GROUP BY pairs
ORDER BY pairs
