-- The words of a batch of normalised lines (view lines: words), counted.
SELECT word AS ngram, count(*) AS count
FROM (SELECT unnest(string_split(words, ' ')) AS word FROM lines WHERE words != '')
GROUP BY word
ORDER BY word
