-- What every source offers, in the order of the paper: words, pairs by their mutual information,
-- titles by views, synsets by occurrences in the text; a user's own queries before all. `place` is
-- the order within a source. Views: given (query, words, count, score, rank), words and pairs
-- (ngram, count), titles (query, words, count), synsets (query, words).
WITH joined AS (
    SELECT
        pairs.ngram,
        pairs.count,
        -- a quotient is the same on every machine; its logarithm may differ in the last digit
        pairs.count / a.count / b.count * $total AS ratio
    FROM pairs
    JOIN words AS a ON a.ngram = split_part(pairs.ngram, ' ', 1)
    JOIN words AS b ON b.ngram = split_part(pairs.ngram, ' ', 2)
    WHERE pairs.count >= $min_pair_count
        AND pairs.count / a.count / b.count * $total >= $min_ratio
),
named AS (
    SELECT
        any_value(synsets.query ORDER BY synsets.query) AS query,
        synsets.words,
        any_value(coalesce(one.count, two.count)) AS count
    FROM synsets
    LEFT JOIN words AS one ON one.ngram = synsets.words
    LEFT JOIN pairs AS two ON two.ngram = synsets.words
    WHERE synsets.words != ''
    GROUP BY synsets.words
)
SELECT 'given' AS source, 0 AS nth, rank AS place, query, words, count, score
FROM given
WHERE words != ''
UNION ALL
SELECT
    'words', 1, row_number() OVER (ORDER BY count DESC, ngram), ngram, ngram, count,
    round(count / $total * 1e6, 3)
FROM words
WHERE count >= $min_word_count AND len(ngram) > 1
UNION ALL
SELECT
    'pairs', 2, row_number() OVER (ORDER BY ratio DESC, count DESC, ngram), ngram, ngram, count,
    round(log2(ratio), 3)
FROM joined
UNION ALL
SELECT 'titles', 3, row_number() OVER (ORDER BY count DESC, words), query, words, count, count
FROM titles
UNION ALL
SELECT
    'wordnet', 4, row_number() OVER (ORDER BY count DESC NULLS LAST, words), query, words, count, NULL
FROM named
