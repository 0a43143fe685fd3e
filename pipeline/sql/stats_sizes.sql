-- The shorter side of the downloaded images that are in the shards, in classes.
WITH sides AS (
    SELECT least(original_width, original_height) AS side, pairs FROM image_sizes
)
SELECT
    CASE
        WHEN side < 64 THEN '0 to 63'
        WHEN side < 128 THEN '64 to 127'
        WHEN side < 256 THEN '128 to 255'
        WHEN side < 512 THEN '256 to 511'
        WHEN side < 1024 THEN '512 to 1023'
        ELSE '1024 and more'
    END AS shorter_side,
    CAST(sum(pairs) AS BIGINT) AS kept
FROM sides
GROUP BY shorter_side
ORDER BY min(side)
