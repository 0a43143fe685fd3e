-- The pairs that queries bring in, each its $cap pairs of lowest rank (coordinated bottom-k). No
-- order of the input enters, a smaller cap keeps a subset of a larger one, and of the pairs of two
-- inputs only those brought in from either can be brought in from both.
-- Ranks are uniform, so of a query with n pairs the first $cap lie, but for a chance below one in
-- a billion, under the quantile (cap + 6 sqrt(cap)) / n: only those are sorted. A query for which
-- the bound held too few is sorted whole, so the result is always exact.
WITH wanted AS (
    SELECT match.query_id, match.row, standing.rank
    FROM read_parquet($match) AS match
    JOIN read_parquet($standing) AS standing USING (row)
    WHERE standing.reason IS NULL AND match.query_id % $parts = $part
),
sizes AS (
    SELECT query_id, ($cap + 6 * sqrt($cap)) / count(*) * 18446744073709551616.0 AS bound
    FROM wanted
    GROUP BY query_id
    HAVING count(*) > $cap
),
bounds AS (
    SELECT
        sizes.query_id,
        CASE
            WHEN count(*) FILTER (CAST(wanted.rank AS DOUBLE) <= sizes.bound) < $cap
                THEN 18446744073709551616.0
            ELSE any_value(sizes.bound)
        END AS bound
    FROM wanted
    JOIN sizes USING (query_id)
    GROUP BY sizes.query_id
),
brought_in AS (
    SELECT wanted.row
    FROM wanted
    ANTI JOIN sizes USING (query_id)
    UNION
    SELECT row
    FROM (
        SELECT
            wanted.row,
            row_number() OVER (PARTITION BY wanted.query_id ORDER BY wanted.rank, wanted.row) AS nth
        FROM wanted
        JOIN bounds USING (query_id)
        WHERE CAST(wanted.rank AS DOUBLE) <= bounds.bound
    )
    WHERE nth <= $cap
)
SELECT row FROM brought_in ORDER BY row
