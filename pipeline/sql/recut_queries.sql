-- The query lists of the sources as one, numbered anew; of equal queries the first stays.
-- all_queries: a view with nth (of the source) and the columns of queries.
WITH once AS (
    SELECT DISTINCT ON (words) * FROM all_queries ORDER BY words, nth, query_id
)
SELECT
    CAST(row_number() OVER (ORDER BY nth, query_id) - 1 AS INTEGER) AS query_id,
    query,
    words,
    source,
    rank,
    count,
    score
FROM once
ORDER BY query_id
