-- Normalised words, with the captions that hold them.
WITH split AS (
    SELECT row, unnest(list_distinct(string_split(words, ' '))) AS word
    FROM read_parquet($clean)
    WHERE words != ''
)
SELECT
    split.word,
    count(*) AS rows,
    count(*) FILTER (pairs.verdict = 'kept') AS kept
FROM split
JOIN pairs USING (row)
GROUP BY split.word
ORDER BY rows DESC, split.word
