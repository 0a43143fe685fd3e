-- Characters per caption: classes of a quarter octave, each with its lower end.
SELECT
    CAST(ceil(pow(2, floor(4 * log2(length(text))) / 4)) AS BIGINT) AS characters,
    count(*) AS rows,
    count(*) FILTER (verdict = 'kept') AS kept
FROM pairs
WHERE text != ''
GROUP BY floor(4 * log2(length(text)))
ORDER BY characters
