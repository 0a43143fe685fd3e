-- Rows dropped as duplicates, beside the row that stayed instead, and the rule that chose it: by
-- dedupe.keep; rank decides between equals.
SELECT
    gone.row,
    gone.uid,
    gone.duplicate_of,
    gone.reason,
    gone.url,
    kept.url AS kept_url,
    gone.text,
    kept.text AS kept_text,
    CASE
        WHEN gone.reason = 'duplicate_image' OR gone.reason = 'near_duplicate_image'
            THEN 'the larger image'
        WHEN $keep = 'similarity' THEN 'the higher similarity'
        WHEN $keep = 'aesthetic' THEN 'the higher aesthetic score'
        WHEN $keep = 'longest' THEN 'the longer caption'
        ELSE 'the lower rank'
    END AS rule
FROM pairs AS gone
JOIN (SELECT uid, min_by(url, row) AS url, min_by(text, row) AS text FROM pairs GROUP BY uid) AS kept
    ON kept.uid = gone.duplicate_of
ORDER BY gone.row
