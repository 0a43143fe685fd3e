-- The domains with most rows.
SELECT domain, rows, kept, round(100 * kept / rows, 1) AS "kept %", urls
FROM domains
ORDER BY rows DESC, domain
LIMIT $top
