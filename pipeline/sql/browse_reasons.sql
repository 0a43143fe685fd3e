-- Why rows were dropped, the commonest reason first.
SELECT reason, sum(rows) AS rows, any_value(meaning) AS meaning
FROM reasons
WHERE rows > 0
GROUP BY reason
ORDER BY rows DESC, reason
