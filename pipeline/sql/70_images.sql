-- The verdict on every image row: the download's own reason, then sizes, then duplicates.
-- looks: url_key of a dropped image -> url_key of the one that shows the same picture and stays.
-- All pairs of one URL share its verdict. kept_row is the row of lowest rank of the URL kept.
WITH wanted AS (
    SELECT balance.row, ingest.rank, urls.url_key
    FROM read_parquet($balance) AS balance
    JOIN read_parquet($ingest) AS ingest USING (row)
    JOIN read_parquet($urls) AS urls USING (row)
    WHERE balance.reason IS NULL
),
first_rows AS (
    SELECT url_key, arg_min(row, (rank, row)) AS row FROM wanted GROUP BY url_key
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
    verdicts.reason,
    first_rows.row AS kept_row,
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
LEFT JOIN first_rows ON first_rows.url_key = verdicts.kept_key
ORDER BY wanted.row
