-- Rows, and the pairs that were kept.
SELECT count(*) AS rows, count(*) FILTER (verdict = 'kept') AS kept FROM pairs
