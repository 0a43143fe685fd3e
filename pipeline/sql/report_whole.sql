-- The whole corpus in one row, from the small tables alone.
SELECT
    (SELECT rows_in FROM stages WHERE stage IN ('90_pairs', 'reshard')) AS rows,
    (SELECT CAST(coalesce(sum(samples), 0) AS BIGINT) FROM shards) AS kept,
    (SELECT count(*) FROM shards) AS shards,
    (SELECT CAST(coalesce(sum(image_bytes), 0) AS BIGINT) FROM shards) AS image_bytes,
    (SELECT count(*) FROM queries) AS queries,
    (SELECT count(*) FROM queries WHERE kept > 0) AS queries_kept,
    (SELECT count(*) FROM domains WHERE kept > 0) AS domains,
    (SELECT rows_in FROM stages WHERE stage = '60_fetch') AS urls
