-- A given query list, in its own order. A query whose normalised words repeat an earlier one,
-- are none or too many is left out; the stage counts these.
-- listed: a view with rank, query, words, source, count, score.
SELECT
    CAST(row_number() OVER (ORDER BY rank) - 1 AS INTEGER) AS query_id,
    query,
    words,
    source,
    CAST(rank AS INTEGER) AS rank,
    CAST(count AS BIGINT) AS count,
    CAST(score AS DOUBLE) AS score
FROM listed
WHERE words != '' AND len(string_split(words, ' ')) <= $max_words
QUALIFY row_number() OVER (PARTITION BY words ORDER BY rank) = 1
ORDER BY query_id
