-- Width and height of the downloaded images in the shards, in classes of a quarter octave.
SELECT
    CAST(floor(4 * log2(original_width)) AS INTEGER) AS width_class,
    CAST(floor(4 * log2(original_height)) AS INTEGER) AS height_class,
    CAST(sum(pairs) AS BIGINT) AS pairs
FROM image_sizes
WHERE original_width > 0 AND original_height > 0
GROUP BY width_class, height_class
ORDER BY width_class, height_class
