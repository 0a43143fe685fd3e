-- The cap: a pair stays when a query brings it in.
SELECT
    dedupe.row,
    CASE WHEN brought_in.row IS NULL THEN 'over_cap' END AS reason
FROM (
    SELECT row FROM read_parquet($dedupe) WHERE reason IS NULL AND row >= $first AND row < $last
) AS dedupe
LEFT JOIN (
    SELECT DISTINCT row FROM read_parquet($bring) WHERE row >= $first AND row < $last
) AS brought_in ON brought_in.row = dedupe.row
ORDER BY dedupe.row
