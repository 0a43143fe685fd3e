-- Rows that gave way to a pair.
SELECT row, reason, url, text, rule FROM duplicates WHERE duplicate_of = $uid ORDER BY row LIMIT 20
