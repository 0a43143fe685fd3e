-- Every attempted sample in the order of the shards, with what it takes to write it; without the
-- good ones that fell over the cap. A share of the pages, drawn by a hash, is held out: a page is
-- what the metadata name as such, or the site and folder of the image; all pairs of one image are on
-- the same side.
WITH pages AS (
    SELECT
        urls.url_key,
        min(coalesce(
            ingest.page,
            coalesce(urls.domain, ingest.source) || regexp_replace(
                regexp_replace(ingest.url, '^[^:/]*://[^/?#]*|[?#].*$', '', 'g'), '[^/]*$', ''
            )
        )) AS page
    FROM read_parquet($ingest) AS ingest
    JOIN read_parquet($urls) AS urls USING (row)
    WHERE $val_share > 0
    GROUP BY urls.url_key
)
SELECT
    images.row,
    ingest.uid,
    ingest.url,
    clean.text AS caption,
    CASE
        WHEN images.reason IS NULL THEN 'success'
        WHEN fetched.status = 'success' THEN 'failed_to_resize'
        ELSE fetched.status
    END AS status,
    images.reason AS error_message,
    images.width,
    images.height,
    images.original_width,
    images.original_height,
    images.sha256,
    fetched.tar,
    fetched.offset,
    fetched.size,
    fetched.ext,
    CASE
        WHEN md5_number_lower('page ' || pages.page) % 1000000 < $val_share * 1000000 THEN 'val'
        ELSE 'train'
    END AS split
FROM read_parquet($images) AS images
JOIN read_parquet($ingest) AS ingest USING (row)
JOIN read_parquet($urls) AS urls USING (row)
JOIN read_parquet($clean) AS clean USING (row)
JOIN read_parquet($fetch) AS fetched USING (url_key)
LEFT JOIN pages USING (url_key)
LEFT JOIN read_parquet($cap) AS cap ON cap.row = images.row
WHERE cap.reason IS NULL
ORDER BY ingest.rank, images.row
