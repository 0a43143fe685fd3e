-- Which queries occur in which caption, bounded by words. caption_queries looks every run of words
-- of a caption up in a hash table of the queries (pipeline/ngrams.py): captions stream through.
SELECT row, unnest(caption_queries(words)) AS query_id
FROM read_parquet($clean)
WHERE words != ''
ORDER BY row, query_id
