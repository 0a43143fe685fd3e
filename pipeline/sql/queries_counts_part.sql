-- N-grams that somebody else counted (view counted: ngram, count), normalised; those of one length.
SELECT words AS ngram, CAST(sum(count) AS BIGINT) AS count
FROM (SELECT normalised_words(ngram) AS words, count FROM counted WHERE count > 0)
WHERE words != '' AND len(string_split(words, ' ')) = $size
GROUP BY words
ORDER BY words
