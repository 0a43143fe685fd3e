-- The queries with the most pairs in the shards.
SELECT query, source, matched, kept FROM queries ORDER BY kept DESC, matched DESC, query LIMIT $top
