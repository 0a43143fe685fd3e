-- Hosts, with the rows they gave and those that are in the shards.
SELECT
    domain,
    count(*) AS rows,
    count(*) FILTER (verdict = 'kept') AS kept,
    count(DISTINCT url) AS urls
FROM pairs
WHERE domain IS NOT NULL
GROUP BY domain
ORDER BY rows DESC, domain
