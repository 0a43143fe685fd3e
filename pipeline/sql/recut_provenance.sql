-- Where the URLs of the pairs that were taken led; of two sources the first.
-- all_provenance: a view with nth (of the source) and the columns of provenance.parquet.
SELECT DISTINCT ON (url) * EXCLUDE (nth)
FROM all_provenance
WHERE trim(url, e' \t\r\n')
    IN (SELECT trim(url, e' \t\r\n') FROM read_parquet($pairs))
ORDER BY url, nth
