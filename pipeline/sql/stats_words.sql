-- The words with most pairs in the shards.
SELECT word, rows, kept FROM words ORDER BY kept DESC, rows DESC, word LIMIT $top
