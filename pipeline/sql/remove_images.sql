-- Images in the tars of the download that show what was removed, byte for byte, under whatever
-- URL, unless a pair that is kept needs them.
WITH used AS (
    SELECT
        fetched.sha256,
        count(removed.row) AS removed,
        count(*) FILTER (removed.row IS NULL AND pairs.verdict = 'kept') AS kept
    FROM read_parquet($fetch) AS fetched
    JOIN read_parquet($urls) AS urls USING (url_key)
    JOIN read_parquet($pairs) AS pairs ON pairs.row = urls.row
    LEFT JOIN read_parquet($removed) AS removed ON removed.row = pairs.row
    GROUP BY fetched.sha256
)
SELECT fetched.tar, fetched.offset, fetched.size
FROM read_parquet($fetch) AS fetched
JOIN used USING (sha256)
WHERE fetched.tar IS NOT NULL AND used.removed > 0 AND used.kept = 0
ORDER BY fetched.tar, fetched.offset
