-- Input files, with the rows they gave and those in the shards.
SELECT source, count(*) AS rows, count(*) FILTER (verdict = 'kept') AS kept
FROM pairs
GROUP BY source
ORDER BY rows DESC, source
LIMIT $top
