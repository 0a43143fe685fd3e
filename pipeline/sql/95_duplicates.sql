-- Rows dropped as duplicates, beside the row that stayed instead.
SELECT
    gone.row,
    gone.uid,
    gone.duplicate_of,
    gone.reason,
    gone.url,
    kept.url AS kept_url,
    gone.text,
    kept.text AS kept_text
FROM pairs AS gone
JOIN (SELECT uid, min_by(url, row) AS url, min_by(text, row) AS text FROM pairs GROUP BY uid) AS kept
    ON kept.uid = gone.duplicate_of
ORDER BY gone.row
