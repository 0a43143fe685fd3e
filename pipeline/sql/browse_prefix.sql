-- Rows whose caption has a word that lies between two, how often, and how many words it has.
SELECT row, sum(times) AS times, any_value(size) AS size
FROM words.postings
WHERE word >= $low AND word <= $high
GROUP BY row
