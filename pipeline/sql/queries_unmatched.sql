-- The first few queries of each source that stand in no caption of the sample.
SELECT source, query, rank
FROM read_parquet($coverage)
WHERE captions = 0
QUALIFY row_number() OVER (PARTITION BY source ORDER BY rank) <= $top
ORDER BY rank
