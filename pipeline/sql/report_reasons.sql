-- Rows by the reason that dropped them.
SELECT reason, stage, rows, round(100 * share, 3) AS "%", meaning
FROM reasons
WHERE rows > 0
ORDER BY rows DESC, reason
