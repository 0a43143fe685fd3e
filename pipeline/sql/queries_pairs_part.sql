-- The pairs of neighbouring words of a batch of normalised lines (view lines: words), counted.
WITH split AS (SELECT string_split(words, ' ') AS w FROM lines WHERE contains(words, ' '))
SELECT a || ' ' || b AS ngram, count(*) AS count
FROM (SELECT unnest(w[:-2]) AS a, unnest(w[2:]) AS b FROM split)
GROUP BY a, b
ORDER BY ngram
