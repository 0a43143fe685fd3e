-- The rules on a row by itself; the first that it breaks is its reason. What later choices between
-- rows need goes with it: keys, rank, and merit, by which the best of several captions is kept
-- (less is better). Where a script has no spaces, each character counts as a word.
-- custom_reason: a macro, the rules of the user (pipeline/rules.py).
WITH suffixes AS (
    SELECT domain, unnest(list_transform(
        range(1, len(string_split(domain, '.')) + 1),
        lambda i: array_to_string(string_split(domain, '.')[i:], '.')
    )) AS suffix
    FROM (SELECT DISTINCT domain FROM read_parquet($urls))
),
listed_domains AS (
    SELECT suffixes.domain, min(lists.reason) AS reason
    FROM suffixes
    JOIN read_parquet($lists) AS lists ON lists.domain = suffixes.suffix
    GROUP BY suffixes.domain
),
listed_urls AS (
    SELECT DISTINCT url_key FROM read_parquet($lists) WHERE url_key IS NOT NULL
),
listed_uids AS (SELECT DISTINCT uid FROM read_parquet($lists) WHERE uid IS NOT NULL),
matched AS (SELECT DISTINCT row FROM read_parquet($match)),
facts AS (
    SELECT
        ingest.*,
        urls.url_key,
        urls.domain,
        urls.reason AS url_reason,
        lower(urls.tail) AS tail,
        clean.text_key,
        clean.text,
        clean.words,
        clean.language,
        clean.language_probability,
        listed_urls.url_key IS NOT NULL OR listed_uids.uid IS NOT NULL AS opted_out,
        listed_domains.reason AS domain_reason,
        repeats.text_key IS NOT NULL AS repeated,
        matched.row IS NOT NULL AS matched,
        len(
            regexp_extract_all(clean.words, '[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|[^ ]+')
        ) AS word_count
    FROM read_parquet($ingest) AS ingest
    JOIN read_parquet($urls) AS urls USING (row)
    JOIN read_parquet($clean) AS clean USING (row)
    LEFT JOIN listed_urls ON listed_urls.url_key = urls.url_key
    LEFT JOIN listed_uids ON listed_uids.uid = ingest.uid
    LEFT JOIN listed_domains ON listed_domains.domain = urls.domain
    LEFT JOIN read_parquet($repeats) AS repeats ON repeats.text_key = clean.text_key
    LEFT JOIN matched ON matched.row = ingest.row
),
bounds AS (SELECT * FROM read_parquet($scores))
SELECT
    row,
    CASE
        WHEN text IS NULL OR text = '' THEN 'no_text'
        WHEN url_reason IS NOT NULL THEN url_reason
        WHEN list_contains($block_extensions, regexp_extract(tail, '\.([a-z0-9]+)$', 1))
            THEN 'url_extension'
        WHEN opted_out THEN 'opt_out_list'
        WHEN domain_reason IS NOT NULL THEN domain_reason
        WHEN len($allow) > 0 AND NOT coalesce(
            len(list_filter($allow, lambda pattern: lower(license) GLOB pattern)) > 0, false
        ) THEN 'license'
        WHEN len(list_filter($block, lambda pattern: lower(license) GLOB pattern)) > 0
            THEN 'license'
        WHEN length(text) < $min_chars OR word_count < $min_words THEN 'text_too_short'
        WHEN length(text) > $max_chars OR word_count > $max_words THEN 'text_too_long'
        WHEN NOT $file_names AND regexp_matches(text, $file_name_pattern, 'i') THEN 'file_name'
        WHEN list_contains($placeholders, regexp_replace(words, '( [0-9]+)+$', ''))
            THEN 'placeholder'
        WHEN NOT $url_tails
            AND (lower(text) = tail OR lower(text) = regexp_replace(tail, '\.[a-z0-9]+$', ''))
            THEN 'url_tail'
        WHEN length(regexp_replace(text, '[^\p{L}\p{M}\p{N}]', '', 'g'))
            < $min_alnum * length(replace(text, ' ', '')) THEN 'few_letters'
        WHEN len($languages) > 0
            AND NOT list_contains($languages, language)
            AND language_probability >= $language_threshold THEN 'language'
        WHEN repeated THEN 'boilerplate'
        WHEN least(declared_width, declared_height) < $min_side THEN 'declared_too_small'
        WHEN greatest(declared_width, declared_height)
            > $max_aspect * least(declared_width, declared_height) THEN 'declared_aspect'
        WHEN similarity < bounds.similarity_min OR similarity > bounds.similarity_max
            THEN 'low_similarity'
        WHEN nsfw < bounds.nsfw_min OR nsfw > bounds.nsfw_max THEN 'nsfw'
        WHEN watermark < bounds.watermark_min OR watermark > bounds.watermark_max
            THEN 'watermark'
        WHEN aesthetic < bounds.aesthetic_min OR aesthetic > bounds.aesthetic_max
            THEN 'low_aesthetic'
        ELSE coalesce(
            custom_reason(
                url, domain, source, raw_text, text, words, language, language_probability,
                license, declared_width, declared_height, similarity, nsfw, watermark, aesthetic
            ),
            CASE WHEN NOT matched THEN 'no_query' END
        )
    END AS reason,
    rank,
    url_key,
    text_key,
    CAST(coalesce(
        CASE $keep
            WHEN 'rank' THEN 0
            WHEN 'similarity' THEN -similarity
            WHEN 'aesthetic' THEN -aesthetic
            WHEN 'longest' THEN -length(text)
        END,
        'infinity'
    ) AS DOUBLE) AS merit
FROM facts, bounds
ORDER BY row
