-- Every input row, as in pairs/*.parquet.
SELECT * FROM read_parquet($pairs) ORDER BY row
