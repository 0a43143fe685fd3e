-- The verdicts of exact duplicates, and on top of them near-duplicate captions. A row whose place
-- was taken by one that now gives way itself names the row that stays in the end.
-- gone: caption that gives way -> the row that stays for it, by the row that stands for a caption.
WITH exact AS (
    SELECT row, reason, kept_row, rank, coalesce(kept_row, row) AS holder
    FROM read_parquet($exact)
)
SELECT
    exact.row,
    CASE
        WHEN exact.reason IS NOT NULL THEN exact.reason
        WHEN gone.kept_row IS NOT NULL OR firsts.first_row != exact.row THEN 'near_duplicate_text'
    END AS reason,
    nullif(coalesce(gone.kept_row, firsts.first_row), exact.row) AS kept_row,
    exact.rank
FROM exact
JOIN read_parquet($firsts) AS firsts ON firsts.row = exact.holder
LEFT JOIN read_parquet($gone) AS gone ON gone.row = firsts.first_row
ORDER BY exact.row
