-- Overlaps with evaluation sets, as the sources found them, of the pairs that were taken.
-- all_eval_overlaps: a view with nth (of the source) and the columns of eval_overlaps.
SELECT DISTINCT ON (pairs.row, set, key)
    pairs.row,
    pairs.uid,
    all_eval_overlaps.set,
    all_eval_overlaps.key,
    all_eval_overlaps.how,
    all_eval_overlaps.distance
FROM all_eval_overlaps
JOIN read_parquet($pairs) AS pairs USING (uid)
ORDER BY pairs.row, set, key, nth
