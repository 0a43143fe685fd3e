-- How many captions of the sample hold a query, and how many each.
WITH found AS (
    SELECT clean.row, count(matches.query_id) AS queries
    FROM read_parquet($clean) AS clean
    LEFT JOIN read_parquet($matches) AS matches USING (row)
    GROUP BY clean.row
)
SELECT
    count(*) AS captions,
    count(*) FILTER (queries > 0) AS with_a_query,
    round(100 * count(*) FILTER (queries > 0) / count(*), 2) AS percent,
    round(avg(queries), 2) AS queries_each
FROM found
