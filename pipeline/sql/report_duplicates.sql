-- Some duplicates of each kind, chosen by a hash of uid and $seed, beside the row that stayed.
WITH chosen AS (
    SELECT unnest(arg_min(row, md5_number_lower(uid || $seed), $top)) AS row
    FROM duplicates
    GROUP BY reason
)
SELECT
    duplicates.row,
    duplicates.reason,
    duplicates.rule,
    duplicates.url,
    duplicates.kept_url,
    duplicates.text,
    duplicates.kept_text,
    (SELECT min(pairs.row) FROM pairs WHERE pairs.uid = duplicates.duplicate_of) AS kept_row
FROM duplicates
SEMI JOIN chosen USING (row)
ORDER BY duplicates.reason, duplicates.row
