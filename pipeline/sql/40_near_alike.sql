-- The candidates whose worse caption lies in a range of rows and that are as like as the threshold
-- says: the share of common shingles (Jaccard), counted and not estimated.
-- shingles: a macro, shingles.sql.
WITH shingled AS (
    SELECT
        candidates.row,
        candidates.kept_row,
        candidates.merit,
        candidates.rank,
        shingles(candidates.words, $shingle) AS ours,
        shingles(clean.words, $shingle) AS theirs
    FROM read_parquet($candidates) AS candidates
    JOIN read_parquet($clean) AS clean ON clean.row = candidates.row
    WHERE candidates.row >= $first AND candidates.row < $last
),
counted AS (
    SELECT
        row,
        kept_row,
        merit,
        rank,
        len(list_intersect(ours, theirs)) AS common,
        len(ours) + len(theirs) AS members
    FROM shingled
)
SELECT row, kept_row, merit, rank
FROM counted
WHERE common >= $threshold * (members - common)
ORDER BY row, kept_row
