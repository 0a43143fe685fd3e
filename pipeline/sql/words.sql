-- The macro normalised_words(text): the words of a text as wit.text.words has them, joined by one
-- space. Printable ASCII needs no Unicode rules nor Python; the tests hold both to the same result.
CASE
    WHEN regexp_full_match(text, '[ -~]*')
        -- DuckDB 1 joins an empty list to null, DuckDB 2 to nothing
        THEN coalesce(
            array_to_string(
                regexp_extract_all(
                    regexp_replace(lower(text), '([a-z])''s\b', '\1', 'g'), '[a-z0-9]+'
                ),
                ' '
            ),
            ''
        )
    ELSE caption_words(text)
END
