-- Captions that stand on too many different images or domains, by key. Only captions that many
-- rows have are joined with their URLs.
WITH frequent AS (
    SELECT text_key
    FROM read_parquet($clean)
    WHERE text_key % $parts = $part
    GROUP BY text_key
    HAVING count(*) > least($boilerplate_urls, $boilerplate_domains)
),
candidates AS (
    SELECT clean.row, clean.text_key
    FROM read_parquet($clean) AS clean
    SEMI JOIN frequent ON frequent.text_key = clean.text_key
)
SELECT candidates.text_key
FROM read_parquet($urls) AS urls
JOIN candidates USING (row)
WHERE urls.reason IS NULL
GROUP BY candidates.text_key
HAVING count(DISTINCT urls.url_key) > $boilerplate_urls
    OR count(DISTINCT urls.domain) > $boilerplate_domains
ORDER BY candidates.text_key
