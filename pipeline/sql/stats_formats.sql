-- Formats of the downloaded images that are in the shards.
SELECT format, CAST(sum(pairs) AS BIGINT) AS kept
FROM image_sizes
GROUP BY format
ORDER BY kept DESC, format
