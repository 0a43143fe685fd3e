-- Why rows are not in the shards.
SELECT reason, stage, rows, round(100 * share, 2) AS percent, meaning
FROM reasons
WHERE rows > 0
ORDER BY rows DESC, reason
