-- The rules on a row by itself; the first that it breaks is its reason.
-- Where a script has no spaces, each character counts as a word.
WITH boilerplate AS (
    SELECT md5_number_lower(clean.text) AS text_key
    FROM read_parquet($clean) AS clean
    JOIN read_parquet($urls) AS urls USING (row)
    WHERE clean.text != '' AND urls.reason IS NULL
    GROUP BY text_key
    HAVING count(DISTINCT urls.url_key) > $boilerplate_urls
),
matched AS (SELECT DISTINCT row FROM read_parquet($match))
SELECT
    clean.row,
    CASE
        WHEN clean.text IS NULL OR clean.text = '' THEN 'no_text'
        WHEN urls.reason IS NOT NULL THEN urls.reason
        WHEN length(clean.text) < $min_chars
            OR len(
                regexp_extract_all(clean.words, '[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|[^ ]+')
            ) < $min_words THEN 'text_too_short'
        WHEN length(clean.text) > $max_chars THEN 'text_too_long'
        WHEN len($languages) > 0
            AND NOT list_contains($languages, clean.language)
            AND clean.language_probability >= $language_threshold THEN 'language'
        WHEN boilerplate.text_key IS NOT NULL THEN 'boilerplate'
        WHEN matched.row IS NULL THEN 'no_query'
    END AS reason
FROM read_parquet($clean) AS clean
JOIN read_parquet($urls) AS urls USING (row)
LEFT JOIN boilerplate ON boilerplate.text_key = md5_number_lower(clean.text)
LEFT JOIN matched ON matched.row = clean.row
ORDER BY clean.row
