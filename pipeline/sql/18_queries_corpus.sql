-- A query list from the corpus itself: words that stand in many distinct captions, and word
-- pairs that do and belong together (pointwise mutual information), as CLIP made its list from
-- Wikipedia. The most frequent come first.
WITH captions AS (
    SELECT DISTINCT string_split(words, ' ') AS w FROM read_parquet($clean) WHERE words != ''
),
total AS (SELECT count(*) AS captions FROM captions),
single AS (
    SELECT word, count(*) AS count
    FROM (SELECT unnest(list_distinct(w)) AS word FROM captions)
    GROUP BY word
    HAVING count(*) >= $min_count
),
pairs AS (
    SELECT pair, count(*) AS count
    FROM (
        SELECT unnest(list_distinct(
            list_transform(range(1, len(w)), lambda i: w[i] || ' ' || w[i + 1])
        )) AS pair
        FROM captions
    )
    GROUP BY pair
    HAVING count(*) >= $min_count
),
candidates AS (
    SELECT word AS words, count, NULL AS score FROM single WHERE len(word) > 1
    UNION ALL
    SELECT
        pairs.pair,
        pairs.count,
        -- rounded, since the last digits of a logarithm depend on the CPU
        round(log2(pairs.count * (SELECT captions FROM total) / (a.count * b.count)), 3)
    FROM pairs
    JOIN single AS a ON a.word = split_part(pairs.pair, ' ', 1)
    JOIN single AS b ON b.word = split_part(pairs.pair, ' ', 2)
    WHERE log2(pairs.count * (SELECT captions FROM total) / (a.count * b.count)) >= $min_pmi
),
ranked AS (
    SELECT words, count, score, row_number() OVER (ORDER BY count DESC, words) - 1 AS rank
    FROM candidates
)
SELECT
    CAST(rank AS INTEGER) AS query_id,
    words AS query,
    words,
    'corpus' AS source,
    CAST(rank AS INTEGER) AS rank,
    count,
    CAST(score AS DOUBLE) AS score
FROM ranked
WHERE rank < $max_queries
ORDER BY query_id
