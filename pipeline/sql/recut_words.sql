-- The normalised words of the captions.
SELECT row, normalised_words(text) AS words FROM read_parquet($pairs) ORDER BY row
