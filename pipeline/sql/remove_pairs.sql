-- One file of pairs with the removed rows dropped, as a new build would write it.
SELECT
    pairs.* REPLACE (
        CASE WHEN removed.row IS NULL THEN pairs.verdict ELSE 'dropped' END AS verdict,
        CASE WHEN removed.row IS NULL THEN pairs.reason ELSE 'opted_out' END AS reason,
        CASE WHEN removed.row IS NULL THEN pairs.stage ELSE '70_images' END AS stage,
        CASE WHEN removed.row IS NULL THEN pairs.key END AS key,
        CASE WHEN removed.row IS NULL THEN pairs.shard END AS shard,
        CASE WHEN removed.row IS NULL THEN pairs.split END AS split
    )
FROM read_parquet($pairs) AS pairs
LEFT JOIN read_parquet($removed) AS removed ON removed.row = pairs.row AND removed.kept
ORDER BY pairs.row
