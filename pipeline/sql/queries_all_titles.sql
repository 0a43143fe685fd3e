-- The lines of an all-titles file (view lines: number, line): the title of an article, or what is
-- malformed. A line is a title, or a namespace and a title; underscores stand for spaces.
WITH decoded AS (
    SELECT number, line AS bytes, rtrim(TRY(decode(line)), e'\r\n') AS line
    FROM lines
),
judged AS (
    SELECT
        number,
        bytes,
        line,
        coalesce(
            regexp_full_match(line, '[^ \t]+|[0-9]+\t[^ \t]+')
            OR (number = 1 AND line = e'page_namespace\tpage_title'),
            false
        ) AS good
    FROM decoded
    WHERE line IS NULL OR line != ''
)
SELECT
    CASE
        WHEN NOT good THEN NULL
        WHEN NOT contains(line, chr(9)) THEN line
        WHEN starts_with(line, e'0\t') THEN split_part(line, chr(9), 2)
    END AS title,
    number,
    good,
    CASE WHEN NOT good THEN bytes END AS example
FROM judged
