-- The pairs that the 20 joins found, each once, the best image first.
SELECT DISTINCT better, worse FROM read_parquet($near) ORDER BY better, worse
