-- The caption as the model will read it, a key that is equal for equal captions, its normalised
-- words, its language.
-- Printable ASCII without entities needs neither ftfy nor Unicode rules; the tests hold the two
-- roads to the same result.
WITH cleaned AS (
    SELECT
        row,
        CASE
            WHEN regexp_full_match(raw_text, '[ -~]*') AND NOT contains(raw_text, '&')
                THEN trim(
                    CASE
                        WHEN contains(raw_text, '  ') THEN regexp_replace(raw_text, ' +', ' ', 'g')
                        ELSE raw_text
                    END
                )
            ELSE clean_caption(raw_text)
        END AS text
    FROM read_parquet($ingest)
),
split AS (SELECT row, text, normalised_words(text) AS words FROM cleaned),
guessed AS (
    SELECT row, text, words, CASE WHEN words != '' THEN caption_language(text) END AS guess
    FROM split
)
SELECT
    row,
    text,
    md5_number_lower(nullif(text, '')) AS text_key,
    words,
    guess.language AS language,
    guess.probability AS language_probability
FROM guessed
ORDER BY row
