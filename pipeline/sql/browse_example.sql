-- What the page writes into the field for SQL at first.
SELECT reason, count(*) AS rows, any_value(text) AS example
FROM pairs
WHERE verdict = 'dropped'
GROUP BY reason
ORDER BY rows DESC
