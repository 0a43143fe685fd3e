-- Values that a filter may be set to: the commonest of each column.
(SELECT 'domain' AS name, domain AS value, rows FROM domains ORDER BY rows DESC, domain LIMIT 100)
UNION ALL
(SELECT 'language', language, rows FROM languages ORDER BY rows DESC, language LIMIT 100)
UNION ALL
(SELECT 'query', query, kept FROM queries ORDER BY kept DESC, query LIMIT 100)
UNION ALL
(SELECT 'shard', shard, samples FROM shards ORDER BY shard LIMIT 100)
UNION ALL
(SELECT 'stage', stage, dropped FROM stages WHERE dropped > 0 ORDER BY nth)
