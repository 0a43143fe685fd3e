-- Which query occurs in which caption, of all input rows.
SELECT row, query_id FROM read_parquet($match) ORDER BY row, query_id
