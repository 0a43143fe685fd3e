-- The views of each article within one hour. A line of a pageview file is "domain title views
-- bytes"; domains are one site on desktop and mobile. Titles are percent-encoded here and there.
WITH lines AS (
    SELECT string_split(line, ' ') AS field
    FROM read_csv(
        $path, columns = {'line': 'VARCHAR'}, delim = chr(31), quote = '', escape = '',
        header = false, auto_detect = false, ignore_errors = true
    )
),
views AS (
    SELECT
        CASE WHEN contains(field[2], '%') THEN coalesce(TRY(url_decode(field[2])), field[2])
            ELSE field[2] END AS title,
        TRY_CAST(field[3] AS BIGINT) AS views
    FROM lines
    WHERE len(field) >= 3 AND list_contains($domains, field[1])
)
SELECT replace(title, ' ', '_') AS ngram, CAST(sum(views) AS BIGINT) AS count
FROM views
GROUP BY ngram
HAVING sum(views) >= $min_count
ORDER BY ngram
