-- Of equal pairs (canonical URL and cleaned caption) the one of lowest rank stays; of the
-- captions of one URL, $captions_per_image of lowest rank stay (0: all). kept_row is a row that
-- stays in place of the dropped one.
WITH wanted AS (
    SELECT
        row,
        ingest.rank,
        urls.url_key,
        md5_number_lower(clean.text) AS text_key
    FROM read_parquet($filter) AS filter
    JOIN read_parquet($ingest) AS ingest USING (row)
    JOIN read_parquet($urls) AS urls USING (row)
    JOIN read_parquet($clean) AS clean USING (row)
    WHERE filter.reason IS NULL
),
pairs AS (
    SELECT
        row,
        rank,
        url_key,
        first_value(row) OVER (PARTITION BY url_key, text_key ORDER BY rank, row) AS first_row
    FROM wanted
),
captions AS (
    SELECT
        row,
        row_number() OVER of_url AS nth,
        first_value(row) OVER of_url AS first_of_url
    FROM pairs
    WHERE row = first_row
    WINDOW of_url AS (PARTITION BY url_key ORDER BY rank, row)
),
judged AS (
    SELECT
        pairs.row,
        pairs.row != pairs.first_row AS same_pair,
        $captions_per_image > 0 AND captions.nth > $captions_per_image AS too_many,
        pairs.first_row,
        captions.first_of_url
    FROM pairs
    JOIN captions ON captions.row = pairs.first_row
)
SELECT
    row,
    CASE WHEN same_pair THEN 'duplicate_pair' WHEN too_many THEN 'duplicate_url' END AS reason,
    CASE WHEN too_many THEN first_of_url WHEN same_pair THEN first_row END AS kept_row
FROM judged
ORDER BY row
