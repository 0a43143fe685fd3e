-- Kept pairs of some queries, chosen by a hash of uid and $seed: $top rows of each.
SELECT query_id, unnest(arg_min(row, md5_number_lower(uid || $seed), $top)) AS row
FROM matches
JOIN pairs USING (row)
WHERE query_id IN (SELECT unnest($queries)) AND verdict = 'kept'
GROUP BY query_id
ORDER BY query_id
