-- Which image the features belong to, one of them for each image that was fetched. features: uid of
-- a pair and the number of its row in the features.
SELECT urls.url_key, min(features.nth) AS nth
FROM read_parquet($features) AS features
JOIN read_parquet($ingest) AS ingest USING (uid)
JOIN read_parquet($urls) AS urls USING (row)
JOIN read_parquet($fetch) AS fetched USING (url_key)
WHERE fetched.reason IS NULL
GROUP BY urls.url_key
ORDER BY urls.url_key
