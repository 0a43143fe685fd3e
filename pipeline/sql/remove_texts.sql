-- Captions of the pairs that the catalogue still holds as kept and the table of pairs doesn't.
SELECT pairs.text
FROM pairs
JOIN read_parquet($pairs) AS new USING (row)
WHERE pairs.verdict = 'kept' AND new.verdict != 'kept'
ORDER BY row
