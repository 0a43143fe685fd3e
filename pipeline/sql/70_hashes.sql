-- The distinct perceptual hashes of the images that stand, each with its best image; of images
-- with the same bytes only the best counts.
WITH best AS (
    SELECT min(place) AS place, any_value(phash) AS phash
    FROM read_parquet($checked)
    WHERE reason IS NULL
    GROUP BY sha256
)
SELECT phash, min(place) AS place
FROM best
WHERE phash IS NOT NULL
GROUP BY phash
ORDER BY place
