-- What to download: each canonical URL once, as its row of lowest rank spells it, in order of
-- that rank. The path of a local image is marked with the number of its folder in $sources.
SELECT
    urls.url_key,
    arg_min(
        CASE
            WHEN ingest.local
                THEN 'local:' || list_position($sources, ingest.source) - 1 || ':' || ingest.url
            ELSE trim(ingest.url, e' \t\r\n')
        END,
        (ingest.rank, ingest.row)
    ) AS url
FROM read_parquet($balance) AS balance
JOIN read_parquet($ingest) AS ingest USING (row)
JOIN read_parquet($urls) AS urls USING (row)
WHERE balance.reason IS NULL
GROUP BY urls.url_key
ORDER BY min((ingest.rank, ingest.row))
