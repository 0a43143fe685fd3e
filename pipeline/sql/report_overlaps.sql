-- Some overlaps with evaluation sets, chosen by a hash of uid and $seed.
SELECT row, set, key, how, distance
FROM eval_overlaps
ORDER BY md5_number_lower(uid || key || $seed), row, set, key
LIMIT $top
