-- Which queries occur in which caption, bounded by words: every run of one to four words of the
-- caption is looked up among the queries (a hash join, which spills and runs in parallel).
WITH tokens AS (
    SELECT row, string_split(words, ' ') AS w FROM read_parquet($clean) WHERE words != ''
),
grams AS (
    SELECT
        row,
        unnest(list_distinct(list_concat(
            w,
            list_transform(range(1, len(w)), lambda i: w[i] || ' ' || w[i + 1]),
            list_transform(
                range(1, len(w) - 1), lambda i: w[i] || ' ' || w[i + 1] || ' ' || w[i + 2]
            ),
            list_transform(
                range(1, len(w) - 2),
                lambda i: w[i] || ' ' || w[i + 1] || ' ' || w[i + 2] || ' ' || w[i + 3]
            )
        ))) AS gram
    FROM tokens
)
SELECT grams.row, queries.query_id
FROM grams
JOIN read_parquet($queries) AS queries ON queries.words = grams.gram
ORDER BY grams.row, queries.query_id
