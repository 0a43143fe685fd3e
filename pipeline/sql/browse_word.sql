-- Rows whose caption has one word, how often, and how many words it has.
SELECT row, times, size FROM words.postings WHERE word = $low
