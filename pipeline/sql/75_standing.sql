-- The pairs whose images are good, with their ranks.
SELECT images.row, images.reason, ingest.rank
FROM read_parquet($images) AS images
JOIN read_parquet($ingest) AS ingest USING (row)
WHERE images.reason IS NULL
ORDER BY images.row
