-- The list: of equal words one entry, of its first source. Where there are too many, pairs are the
-- first to go: the cut of their mutual information is what fills the list. Then the later sources.
WITH entries AS (
    SELECT *, CASE WHEN source = 'pairs' THEN 9 ELSE nth END AS turn
    FROM read_parquet($entries)
    WHERE len(string_split(words, ' ')) <= $max_words
),
firsts AS (
    SELECT words, turn, place
    FROM entries
    QUALIFY row_number() OVER (PARTITION BY words ORDER BY turn, place) = 1
),
chosen AS (SELECT * FROM firsts ORDER BY turn, place LIMIT $max_queries),
cut AS (
    SELECT min(entries.place) AS place
    FROM entries
    ANTI JOIN chosen ON chosen.words = entries.words
    WHERE entries.source = 'pairs'
),
attributed AS (
    SELECT entries.*
    FROM entries
    SEMI JOIN chosen ON chosen.words = entries.words
    WHERE entries.source != 'pairs' OR entries.place < coalesce((SELECT place FROM cut), 1e18)
    QUALIFY row_number() OVER (PARTITION BY entries.words ORDER BY nth, place) = 1
)
SELECT
    query,
    source,
    CAST(row_number() OVER (ORDER BY nth, place) - 1 AS INTEGER) AS rank,
    CAST(count AS BIGINT) AS count,
    CAST(score AS DOUBLE) AS score
FROM attributed
ORDER BY rank
