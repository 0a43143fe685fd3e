-- Rows whose address may be the same as one that is asked for: of its host, and with its path, which
-- no spelling changes. The limit is for front pages, whose path stands in every address.
SELECT row, url
FROM pairs
WHERE domain IS NOT DISTINCT FROM $domain AND contains(url, $path)
ORDER BY length(url), row
LIMIT 100000
