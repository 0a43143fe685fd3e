-- Of the rows that exact duplicates left, the best of each caption: a caption that stands on a
-- million images is sketched once.
WITH stays AS (
    SELECT filter.row, filter.text_key, filter.merit, filter.rank
    FROM read_parquet($filter) AS filter
    SEMI JOIN (SELECT row FROM read_parquet($exact) WHERE reason IS NULL) AS exact USING (row)
    WHERE filter.text_key % $parts = $part
),
firsts AS (
    SELECT text_key, arg_min(row, (merit, rank, row)) AS row FROM stays GROUP BY text_key
)
SELECT stays.row, firsts.row AS first_row, stays.merit, stays.rank
FROM stays
JOIN firsts USING (text_key)
ORDER BY stays.row
