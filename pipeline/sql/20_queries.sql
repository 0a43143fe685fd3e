-- The normalised words of every query; their place is query_id.
SELECT words FROM read_parquet($queries) ORDER BY query_id
