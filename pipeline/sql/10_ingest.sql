-- One line per caption of one input file, or of a range of its rows, in the order of the file.
-- source: a view with url VARCHAR, captions VARCHAR[] (an image may have several), and what else
-- the file declares, null where it doesn't. Paths of local images are put behind $prefix, so that
-- they start at the folder of the metadata file.
-- uid is wit.text.uid: the length of the URL in bytes keeps URL and caption apart.
WITH exploded AS (
    SELECT
        $prefix || url AS url,
        unnest(CASE WHEN len(captions) > 0 THEN captions ELSE [NULL] END) AS raw_text,
        width,
        height,
        license,
        page,
        similarity,
        nsfw,
        watermark,
        aesthetic
    FROM source
),
numbered AS (
    SELECT
        $first + row_number() OVER () - 1 AS row,
        md5(
            strlen(coalesce(url, '')) || ':' || coalesce(url, '') || coalesce(raw_text, '')
        ) AS uid,
        *
    FROM exploded
)
SELECT
    row,
    uid,
    CAST('0x' || left(uid, 16) AS UBIGINT) AS rank,
    CAST($name AS VARCHAR) AS source,
    CAST($local AS BOOLEAN) AS local,
    url,
    raw_text,
    -- a size is a positive number, a score is a finite one; anything else is as good as none
    CASE WHEN width BETWEEN 1 AND 1000000000 THEN CAST(width AS INTEGER) END AS declared_width,
    CASE WHEN height BETWEEN 1 AND 1000000000 THEN CAST(height AS INTEGER) END AS declared_height,
    license,
    page,
    CASE WHEN isfinite(similarity) THEN similarity END AS similarity,
    CASE WHEN isfinite(nsfw) THEN nsfw END AS nsfw,
    CASE WHEN isfinite(watermark) THEN watermark END AS watermark,
    CASE WHEN isfinite(aesthetic) THEN aesthetic END AS aesthetic
FROM numbered
ORDER BY row
