-- The rows of 20_match.sql as a plain hash join that spills on both sides, for a list larger than
-- memory: every run of 1 to $max_words words of a caption is looked up among the queries.
WITH tokens AS (
    SELECT row, string_split(words, ' ') AS w FROM read_parquet($clean) WHERE words != ''
),
grams AS (
    SELECT
        row,
        unnest(list_distinct(flatten(list_transform(
            range(1, $max_words + 1),
            lambda n: list_transform(
                range(1, len(w) - n + 2), lambda i: array_to_string(w[i:i + n - 1], ' ')
            )
        )))) AS gram
    FROM tokens
)
SELECT
    grams.row,
    nullif(queries.query_id, -1) AS query_id -- nullable, as there, so that the bytes are the same
FROM grams
JOIN read_parquet($queries) AS queries ON queries.words = grams.gram
ORDER BY grams.row, queries.query_id
