-- The languages with most rows.
SELECT language, rows, kept, mean_probability FROM languages ORDER BY rows DESC, language LIMIT $top
