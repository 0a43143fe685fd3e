-- Which image gives way to which: to one with the same bytes, or to one whose hash is near.
-- gone: place of the best image of a hash that gives way -> place of the image that stays.
WITH standing AS (
    SELECT url_key, sha256, phash, place FROM read_parquet($checked) WHERE reason IS NULL
),
bytes AS (
    SELECT sha256, min(place) AS place FROM standing GROUP BY sha256
),
pictures AS (
    SELECT
        hashes.phash,
        coalesce(gone.kept, hashes.place) AS place
    FROM read_parquet($hashes) AS hashes
    LEFT JOIN read_parquet($gone) AS gone ON gone.place = hashes.place
),
judged AS (
    SELECT
        standing.url_key,
        standing.place,
        bytes.place AS same_bytes,
        coalesce(pictures.place, bytes.place) AS stays
    FROM standing
    JOIN bytes USING (sha256)
    LEFT JOIN pictures USING (phash)
)
SELECT
    judged.url_key,
    judged.place != judged.same_bytes AS exact,
    kept.url_key AS kept_key
FROM judged
JOIN standing AS kept ON kept.place = judged.stays
WHERE judged.place != judged.stays
ORDER BY judged.url_key
