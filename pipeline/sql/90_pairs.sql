-- Every input row of a range with all that is known about it, its verdict and the reason.
WITH ingest AS (
    SELECT * FROM read_parquet($ingest) WHERE row >= $first AND row < $last
),
dropped AS (
    SELECT row, reason, '30_filter' AS stage, CAST(NULL AS BIGINT) AS kept_row
    FROM read_parquet($filter)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '40_dedupe', kept_row
    FROM read_parquet($dedupe)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '50_balance', NULL
    FROM read_parquet($balance)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '70_images', kept_row
    FROM read_parquet($images)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
    UNION ALL
    SELECT row, reason, '75_cap', NULL
    FROM read_parquet($cap)
    WHERE reason IS NOT NULL AND row >= $first AND row < $last
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
    kept.uid AS duplicate_of,
    CAST(images.width AS INTEGER) AS width,
    CAST(images.height AS INTEGER) AS height,
    CAST(images.original_width AS INTEGER) AS original_width,
    CAST(images.original_height AS INTEGER) AS original_height,
    images.format,
    images.sha256,
    CAST(images.phash AS UBIGINT) AS phash,
    pack.key,
    pack.shard,
    pack.split
FROM ingest
JOIN read_parquet($urls) AS urls USING (row)
JOIN read_parquet($clean) AS clean USING (row)
LEFT JOIN dropped ON dropped.row = ingest.row
LEFT JOIN read_parquet($ingest) AS kept ON kept.row = dropped.kept_row
LEFT JOIN read_parquet($images) AS images ON images.row = ingest.row
LEFT JOIN read_parquet($pack) AS pack ON pack.row = ingest.row
ORDER BY ingest.row
