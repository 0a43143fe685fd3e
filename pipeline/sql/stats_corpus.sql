-- The whole corpus in one row.
SELECT
    count(*) AS rows,
    count(*) FILTER (verdict = 'kept') AS kept,
    round(100 * count(*) FILTER (verdict = 'kept') / greatest(count(*), 1), 2) AS kept_percent,
    count(DISTINCT url) AS urls,
    count(DISTINCT domain) AS domains,
    (SELECT count(*) FROM shards) AS shards,
    (SELECT CAST(coalesce(sum(image_bytes), 0) AS BIGINT) FROM shards) AS image_bytes
FROM pairs
