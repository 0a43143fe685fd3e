-- The candidates of all bands whose better caption lies in a range of rows, each once, with the
-- words of that caption.
WITH candidates AS (
    SELECT DISTINCT row, kept_row, merit, rank
    FROM read_parquet($pairs)
    WHERE kept_row >= $first AND kept_row < $last
)
SELECT candidates.row, candidates.kept_row, candidates.merit, candidates.rank, clean.words
FROM candidates
JOIN read_parquet($clean) AS clean ON clean.row = candidates.kept_row
ORDER BY candidates.row, candidates.kept_row
