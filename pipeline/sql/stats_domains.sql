-- The hosts that gave most rows.
SELECT domain, rows, kept, urls FROM domains ORDER BY rows DESC, domain LIMIT $top
