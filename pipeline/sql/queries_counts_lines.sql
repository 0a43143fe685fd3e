-- Of n-grams that somebody else counted (view counted: ngram, count): all, those without an n-gram or
-- a count that is one, and the first of these; rows are numbered from 1.
WITH numbered AS (
    SELECT
        row_number() OVER () AS number,
        ngram,
        count,
        coalesce(ngram != '' AND count >= 0, false) AS good
    FROM counted
)
SELECT
    count(*) AS lines,
    count(*) FILTER (NOT good) AS malformed,
    min(number) FILTER (NOT good) AS first,
    arg_min(concat_ws(',', ngram, count), number) FILTER (NOT good) AS example
FROM numbered
