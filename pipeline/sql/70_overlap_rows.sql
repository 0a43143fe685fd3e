-- The overlaps of each wanted pair, as overlaps/*.parquet holds them.
SELECT
    balance.row,
    ingest.uid,
    met.set,
    met.key,
    met.how,
    met.distance
FROM read_parquet($balance) AS balance
JOIN read_parquet($ingest) AS ingest USING (row)
JOIN read_parquet($urls) AS urls USING (row)
JOIN read_parquet($overlaps) AS met USING (url_key)
WHERE balance.reason IS NULL
ORDER BY balance.row, met.set, met.key
