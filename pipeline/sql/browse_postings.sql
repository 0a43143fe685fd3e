-- Every word of every caption with the rows it stands in, how often, and how many words the caption
-- has. Ordered by word, so that looking one up reads a few blocks of the file.
WITH split AS (
    SELECT row, string_split(normalised_words(text), ' ') AS words
    FROM catalogue.pairs
    WHERE text != ''
),
flat AS (
    SELECT row, unnest(words) AS word, least(len(words), 65535) AS size FROM split
)
SELECT
    word,
    row,
    CAST(least(count(*), 255) AS UTINYINT) AS times,
    CAST(any_value(size) AS USMALLINT) AS size
FROM flat
WHERE word != ''
GROUP BY word, row
ORDER BY word, row
