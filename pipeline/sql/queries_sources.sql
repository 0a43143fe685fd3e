-- Of every source: what it offered, what became of it, and the range of scores in the list.
WITH entries AS (
    SELECT *, len(string_split(words, ' ')) > $max_words AS long FROM read_parquet($entries)
),
list AS (SELECT source, query, score FROM read_parquet($list)),
kept AS (
    SELECT DISTINCT entries.words
    FROM entries
    JOIN list ON list.source = entries.source AND list.query = entries.query
),
offered AS (
    SELECT
        source,
        any_value(nth) AS nth,
        count(*) AS offered,
        count(*) FILTER (long) AS too_many_words,
        count(*) FILTER (NOT long AND kept.words IS NOT NULL) AS present
    FROM entries
    LEFT JOIN kept USING (words)
    GROUP BY source
),
listed AS (
    SELECT source, count(*) AS listed, min(score) AS least_score, max(score) AS highest_score
    FROM list
    GROUP BY source
)
SELECT
    source,
    offered,
    too_many_words,
    present - coalesce(listed, 0) AS in_another_source,
    offered - too_many_words - present AS over_budget,
    coalesce(listed, 0) AS listed,
    least_score,
    highest_score
FROM offered
LEFT JOIN listed USING (source)
ORDER BY nth
