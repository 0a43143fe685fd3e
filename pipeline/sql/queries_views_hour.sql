-- The lines of a pageview file (view lines: number, line) by article: those of the wanted domains,
-- malformed ones, and all others, which have no title. A line is "domain title views bytes"; domains
-- are one site on desktop and mobile. Titles are percent-encoded here and there.
WITH decoded AS (
    SELECT number, line AS bytes, rtrim(TRY(decode(line)), e'\r\n') AS line
    FROM lines
),
split AS (
    SELECT number, bytes, string_split(line, ' ') AS field
    FROM decoded
    WHERE line IS NULL OR line != ''
),
judged AS (
    SELECT
        number,
        bytes,
        field,
        coalesce(
            len(field) BETWEEN 3 AND 4 AND regexp_full_match(field[3], '[0-9]{1,18}'), false
        ) AS good
    FROM split
),
named AS (
    SELECT
        number,
        bytes,
        good,
        CASE WHEN NOT good OR NOT list_contains($domains, field[1]) THEN NULL
            WHEN contains(field[2], '%') THEN coalesce(TRY(url_decode(field[2])), field[2])
            ELSE field[2] END AS title,
        CASE WHEN good THEN CAST(field[3] AS BIGINT) END AS views
    FROM judged
)
SELECT
    replace(title, ' ', '_') AS title,
    good,
    sum(views) AS views,
    count(*) AS lines,
    min(number) FILTER (NOT good) AS first,
    arg_min(bytes, number) FILTER (NOT good) AS example
FROM named
GROUP BY ALL
