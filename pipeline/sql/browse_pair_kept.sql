-- The pair that stayed in place of a row, and what decided between the two.
SELECT pairs.row, pairs.uid, pairs.url, pairs.text, pairs.key, pairs.phash, duplicates.rule
FROM duplicates
JOIN pairs ON pairs.uid = duplicates.duplicate_of
WHERE duplicates.row = $row
ORDER BY pairs.verdict = 'kept' DESC, pairs.row
LIMIT 1
