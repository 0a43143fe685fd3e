-- The queries that a caption holds, the rarest first.
SELECT queries.query, queries.matched, queries.kept
FROM matches
JOIN queries USING (query_id)
WHERE matches.row = $row
ORDER BY queries.matched, queries.query
LIMIT 40
