-- The verdict on every image row: opt-outs first, then the download's own reason, sizes,
-- duplicates. optouts: kind (uid, sha256, url, domain) and value; a domain covers its subdomains.
-- looks: url_key of a dropped image -> url_key of the one that shows the same picture and stays.
-- All pairs of one URL share its verdict. kept_row is the row of lowest rank of the URL kept.
WITH wanted AS (
    SELECT balance.row, ingest.uid, ingest.url, ingest.rank, urls.url_key, urls.domain
    FROM read_parquet($balance) AS balance
    JOIN read_parquet($ingest) AS ingest USING (row)
    JOIN read_parquet($urls) AS urls USING (row)
    WHERE balance.reason IS NULL
),
first_rows AS (
    SELECT url_key, arg_min(row, (rank, row)) AS row FROM wanted GROUP BY url_key
),
opted AS (
    SELECT wanted.row
    FROM wanted
    JOIN read_parquet($fetch) AS fetched USING (url_key)
    WHERE wanted.uid IN (SELECT value FROM read_parquet($optouts) WHERE kind = 'uid')
        OR fetched.sha256 IN (SELECT value FROM read_parquet($optouts) WHERE kind = 'sha256')
        OR trim(wanted.url, e' \t\r\n')
            IN (SELECT value FROM read_parquet($optouts) WHERE kind = 'url')
        OR EXISTS (
            FROM read_parquet($optouts) AS optouts
            WHERE optouts.kind = 'domain'
                AND ends_with('.' || wanted.domain, '.' || optouts.value)
        )
),
verdicts AS (
    SELECT
        checked.url_key,
        CASE
            WHEN checked.reason IS NOT NULL THEN checked.reason
            WHEN looks.exact THEN 'duplicate_image'
            WHEN NOT looks.exact THEN 'near_duplicate_image'
        END AS reason,
        looks.kept_key
    FROM read_parquet($checked) AS checked
    LEFT JOIN read_parquet($looks) AS looks USING (url_key)
)
SELECT
    wanted.row,
    CASE WHEN opted.row IS NOT NULL THEN 'opted_out' ELSE verdicts.reason END AS reason,
    CASE WHEN opted.row IS NULL THEN first_rows.row END AS kept_row,
    fetched.width,
    fetched.height,
    fetched.original_width,
    fetched.original_height,
    fetched.format,
    fetched.sha256,
    fetched.phash
FROM wanted
JOIN verdicts USING (url_key)
JOIN read_parquet($fetch) AS fetched USING (url_key)
LEFT JOIN opted ON opted.row = wanted.row
LEFT JOIN first_rows ON first_rows.url_key = verdicts.kept_key
ORDER BY wanted.row
