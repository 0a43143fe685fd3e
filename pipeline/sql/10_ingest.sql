-- One line per caption of one input file, in the order of the file.
-- source: a view with url VARCHAR, captions VARCHAR[] (an image may have several). Paths of local
-- images are put behind $prefix, so that they start at the folder of the metadata file.
-- uid is wit.text.uid: the length of the URL in bytes keeps URL and caption apart.
WITH exploded AS (
    SELECT
        $prefix || url AS url,
        unnest(CASE WHEN len(captions) > 0 THEN captions ELSE [NULL] END) AS raw_text
    FROM source
),
numbered AS (
    SELECT
        $first + row_number() OVER () - 1 AS row,
        md5(
            strlen(coalesce(url, '')) || ':' || coalesce(url, '') || coalesce(raw_text, '')
        ) AS uid,
        url,
        raw_text
    FROM exploded
)
SELECT
    row,
    uid,
    CAST('0x' || left(uid, 16) AS UBIGINT) AS rank,
    CAST($name AS VARCHAR) AS source,
    CAST($local AS BOOLEAN) AS local,
    url,
    raw_text
FROM numbered
ORDER BY row
