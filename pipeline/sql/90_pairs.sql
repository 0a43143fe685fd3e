-- Every input row of a range with all that is known about it, its verdict and the reason.
WITH ingest AS (
    SELECT * FROM read_parquet($ingest) WHERE row >= $first AND row < $last
),
urls AS (SELECT row, domain FROM read_parquet($urls) WHERE row >= $first AND row < $last),
clean AS (
    SELECT row, text, language, language_probability
    FROM read_parquet($clean)
    WHERE row >= $first AND row < $last
),
dropped AS (
    SELECT row, reason, '30_filter' AS stage
    FROM read_parquet($filter)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '40_dedupe'
    FROM read_parquet($dedupe)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '50_balance'
    FROM read_parquet($balance)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '70_images'
    FROM read_parquet($images)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '75_cap'
    FROM read_parquet($cap)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
),
images AS (
    SELECT * FROM read_parquet($images) WHERE row >= $first AND row < $last
),
ends AS (
    SELECT * FROM read_parquet($ends) WHERE row >= $first AND row < $last
)
SELECT
    ingest.row,
    ingest.uid,
    ingest.rank,
    ingest.source,
    ingest.url,
    urls.domain,
    ingest.raw_text,
    clean.text,
    clean.language,
    clean.language_probability,
    ingest.license,
    ingest.declared_width,
    ingest.declared_height,
    ingest.similarity,
    ingest.nsfw,
    ingest.watermark,
    ingest.aesthetic,
    CASE WHEN dropped.reason IS NULL THEN 'kept' ELSE 'dropped' END AS verdict,
    dropped.reason,
    dropped.stage,
    ends.duplicate_of,
    CAST(images.width AS INTEGER) AS width,
    CAST(images.height AS INTEGER) AS height,
    CAST(images.original_width AS INTEGER) AS original_width,
    CAST(images.original_height AS INTEGER) AS original_height,
    images.format,
    images.sha256,
    CAST(images.phash AS UBIGINT) AS phash,
    ends.key,
    ends.shard,
    ends.split
FROM ingest
JOIN urls USING (row)
JOIN clean USING (row)
LEFT JOIN dropped ON dropped.row = ingest.row
LEFT JOIN images ON images.row = ingest.row
LEFT JOIN ends ON ends.row = ingest.row
ORDER BY ingest.row
