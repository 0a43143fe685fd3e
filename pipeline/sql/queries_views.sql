-- The views of each article within one hour (table hour), where they count.
SELECT title AS ngram, CAST(views AS BIGINT) AS count
FROM hour
WHERE title IS NOT NULL AND views >= $min_count
ORDER BY title
