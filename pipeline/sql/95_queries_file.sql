-- queries.parquet at the top of the corpus: the list itself, without what was found with it.
SELECT query, source, rank, count, score FROM queries ORDER BY query_id
