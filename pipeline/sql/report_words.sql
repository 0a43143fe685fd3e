-- Words per caption, of all rows that have a caption and of those in the shards; 60: or more.
SELECT
    least(len(string_split(text, ' ')), 60) AS words,
    count(*) AS rows,
    count(*) FILTER (verdict = 'kept') AS kept
FROM pairs
WHERE text != ''
GROUP BY words
ORDER BY words
