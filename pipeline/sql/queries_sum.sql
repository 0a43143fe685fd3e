-- The counts of many files added up; what is too rare is left out.
SELECT ngram, CAST(sum(count) AS BIGINT) AS count
FROM read_parquet($parts)
GROUP BY ngram
HAVING sum(count) >= $min_count
ORDER BY ngram
