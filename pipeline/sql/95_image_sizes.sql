-- Sizes and formats of the downloaded images that are in the shards.
SELECT original_width, original_height, format, count(*) AS pairs
FROM pairs
WHERE verdict = 'kept'
GROUP BY original_width, original_height, format
ORDER BY pairs DESC, original_width, original_height, format
