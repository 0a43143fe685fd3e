-- The candidates that one band gives: captions of equal keys. Each is held against the best
-- $centres of its key, so that a key with a million captions gives as many pairs a caption as any
-- other, and no more.
WITH banded AS (
    SELECT key, row, (merit, rank, row) AS place
    FROM read_parquet($bands)
    WHERE band = $band AND key % $parts = $part
),
shared AS (SELECT key FROM banded GROUP BY key HAVING count(*) > 1),
members AS (SELECT key, row, place FROM banded SEMI JOIN shared USING (key)),
centres AS (
    SELECT key, unnest(arg_min(place, place, $centres)) AS place FROM members GROUP BY key
)
SELECT members.row, centres.place[3] AS kept_row, centres.place[1] AS merit, centres.place[2] AS rank
FROM members
JOIN centres ON centres.key = members.key AND centres.place < members.place
ORDER BY kept_row, members.row
