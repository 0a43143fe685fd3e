-- Where the URLs of the pairs that were taken led; of two downloads the later.
SELECT DISTINCT ON (url) *
FROM read_parquet($provenance)
WHERE url IN (SELECT url FROM read_parquet($pairs))
ORDER BY url, fetched_at DESC
