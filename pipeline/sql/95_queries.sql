-- The query list with the pairs that each query found, those that came to the cap and those that
-- are in the shards.
SELECT
    queries.query_id,
    queries.query,
    queries.words,
    queries.source,
    queries.rank,
    queries.count,
    queries.score,
    count(pairs.row) AS matched,
    count(pairs.row) FILTER (coalesce(pairs.stage, '95') >= '50_balance') AS reached,
    count(pairs.row) FILTER (pairs.verdict = 'kept') AS kept
FROM read_parquet($queries) AS queries
LEFT JOIN matches USING (query_id)
LEFT JOIN pairs ON pairs.row = matches.row
GROUP BY ALL
ORDER BY queries.query_id
