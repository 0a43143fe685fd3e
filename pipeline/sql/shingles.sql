-- The macro shingles(words, size): every run of `size` words, each once; of fewer words all of them.
CASE
    WHEN len(string_split(words, ' ')) < size THEN [words]
    ELSE list_distinct(list_transform(
        range(1, len(string_split(words, ' ')) - size + 2),
        lambda i: array_to_string(string_split(words, ' ')[i:i + size - 1], ' ')
    ))
END
