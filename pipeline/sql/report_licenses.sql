-- Licences as the metadata declare them.
SELECT
    coalesce(license, 'none declared') AS license,
    count(*) AS rows,
    count(*) FILTER (verdict = 'kept') AS kept
FROM pairs
GROUP BY license
ORDER BY rows DESC, license
LIMIT $top
