-- The languages with most rows.
SELECT language, rows, kept, round(100 * kept / rows, 1) AS "kept %", mean_probability
FROM languages
ORDER BY rows DESC, language
LIMIT $top
