-- Every attempted sample in the order of the shards, with what it takes to write it; without the
-- good ones that fell over the cap.
SELECT
    images.row,
    ingest.uid,
    ingest.url,
    clean.text AS caption,
    CASE
        WHEN images.reason IS NULL THEN 'success'
        WHEN fetched.status = 'success' THEN 'failed_to_resize'
        ELSE fetched.status
    END AS status,
    images.reason AS error_message,
    images.width,
    images.height,
    images.original_width,
    images.original_height,
    images.sha256,
    fetched.tar,
    fetched.offset,
    fetched.size,
    fetched.ext
FROM read_parquet($images) AS images
JOIN read_parquet($ingest) AS ingest USING (row)
JOIN read_parquet($urls) AS urls USING (row)
JOIN read_parquet($clean) AS clean USING (row)
JOIN read_parquet($fetch) AS fetched USING (url_key)
LEFT JOIN read_parquet($cap) AS cap ON cap.row = images.row
WHERE cap.reason IS NULL
ORDER BY ingest.rank, images.row
