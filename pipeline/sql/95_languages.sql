-- Languages as recognised, with their rows.
SELECT
    language,
    count(*) AS rows,
    count(*) FILTER (verdict = 'kept') AS kept,
    round(avg(language_probability), 4) AS mean_probability
FROM pairs
WHERE language IS NOT NULL
GROUP BY language
ORDER BY rows DESC, language
