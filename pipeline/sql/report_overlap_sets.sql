-- Evaluation sets, with the pairs that show one of their pictures.
SELECT
    eval_overlaps.set,
    count(DISTINCT eval_overlaps.key) AS pictures,
    count(*) FILTER (how = 'sha256') AS "same bytes",
    count(*) FILTER (how != 'sha256') AS "looks alike",
    count(*) FILTER (verdict = 'kept') AS "pairs kept"
FROM eval_overlaps
JOIN pairs USING (row)
GROUP BY eval_overlaps.set
ORDER BY eval_overlaps.set
