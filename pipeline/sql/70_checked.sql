-- Each fetched URL with the first reason against its image: the download's, a rule on the recorded
-- size of the original, or an overlap with an evaluation set where those are dropped. `place` numbers the images from the best: larger first, then
-- the order of the list, which is that of rank.
SELECT
    url_key,
    sha256,
    phash,
    CASE
        WHEN reason IS NOT NULL THEN reason
        WHEN least(original_width, original_height) < $min_side THEN 'image_too_small'
        WHEN greatest(original_width, original_height)
            > $max_aspect * least(original_width, original_height) THEN 'aspect_ratio'
        WHEN url_key IN (SELECT url_key FROM read_parquet($overlaps)) AND $drop THEN 'overlap'
    END AS reason,
    row_number() OVER (
        ORDER BY CAST(original_width AS BIGINT) * original_height DESC NULLS LAST, file_row_number
    ) AS place
FROM read_parquet($fetch, file_row_number = true)
ORDER BY place
