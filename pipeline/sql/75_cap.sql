-- The cap again, on the pairs whose images are good.
SELECT
    standing.row,
    CASE WHEN brought_in.row IS NULL THEN 'over_cap' END AS reason
FROM read_parquet($standing) AS standing
LEFT JOIN read_parquet($bring) AS brought_in ON brought_in.row = standing.row
ORDER BY standing.row
