-- Kept pairs, chosen by a hash of uid and $seed: $top rows.
SELECT row
FROM pairs
WHERE verdict = 'kept'
ORDER BY md5_number_lower(uid || $seed), row
LIMIT $top
