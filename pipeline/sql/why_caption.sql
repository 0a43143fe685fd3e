-- Rows with a caption, as it was given or as it was cleaned; those that were kept first.
SELECT row
FROM pairs
WHERE text = $text OR raw_text = $raw_text
ORDER BY verdict = 'kept' DESC, rank, row
LIMIT 50
