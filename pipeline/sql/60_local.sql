-- The local images that are wanted: which file of the input names them, and their paths.
SELECT DISTINCT
    ingest.source,
    ingest.url
FROM read_parquet($balance) AS balance
JOIN read_parquet($ingest) AS ingest USING (row)
WHERE balance.reason IS NULL AND ingest.local
ORDER BY ingest.source, ingest.url
