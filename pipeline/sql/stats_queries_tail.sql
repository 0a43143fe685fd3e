-- The queries with the fewest pairs in the shards, but some.
SELECT query, source, matched, kept
FROM queries
WHERE kept > 0
ORDER BY kept, matched, query
LIMIT $top
