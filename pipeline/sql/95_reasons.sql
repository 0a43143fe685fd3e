-- Why rows are not in the shards; a reason that hit no row stands with 0.
-- meanings: a view with nth, reason, meaning.
SELECT
    meanings.reason,
    pairs.stage,
    count(pairs.row) AS rows,
    round(count(pairs.row) / greatest((SELECT count(*) FROM pairs), 1), 6) AS share,
    meanings.meaning
FROM meanings
LEFT JOIN pairs ON pairs.reason = meanings.reason
GROUP BY meanings.nth, meanings.reason, pairs.stage, meanings.meaning
ORDER BY meanings.nth, pairs.stage
