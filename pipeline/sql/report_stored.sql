-- Where the download keeps the images of some rows.
SELECT urls.row, fetched.tar, fetched.offset, fetched.size
FROM read_parquet($urls) AS urls
JOIN read_parquet($fetch) AS fetched USING (url_key)
WHERE urls.row IN (SELECT unnest($rows)) AND fetched.tar IS NOT NULL
ORDER BY urls.row
