-- What each URL means: a key that is equal for spellings of the same address, its domain, and
-- what is wrong with it. The key is 64 bits of the md5 of the canonical URL: scheme and host in
-- lower case, no default port, no fragment, no parameter that only tracks the visitor.
-- tail is the last part of the path, as people wrote it.
-- A row of a local folder of images has a path instead: its key is the path, its domain null.
WITH trimmed AS (
    SELECT
        row,
        local,
        regexp_replace(source, '[^/]*$', '') AS folder,
        trim(url, e' \t\r\n') AS url
    FROM read_parquet($ingest)
),
split AS (
    SELECT
        row,
        local,
        folder,
        url,
        lower(regexp_extract(url, '^([A-Za-z][A-Za-z0-9+.-]*):', 1)) AS scheme,
        -- authority (user, host, port), then path and query without the fragment
        regexp_extract(
            url, '^[A-Za-z][A-Za-z0-9+.-]*://([^/?#\\\s]*)([^?#]*)(\?[^#]*)?', ['authority', 'path', 'query']
        ) AS part
    FROM trimmed
),
hosts AS (
    SELECT
        row,
        local,
        folder,
        url,
        scheme,
        part.path AS path,
        lower(regexp_extract(part.authority, '^(?:.*@)?(\[[^\]]*\]|[^:@]*)(:[0-9]*)?$', 1)) AS host,
        regexp_extract(part.authority, '^(.*@)?', 1) AS userinfo,
        regexp_extract(part.authority, ':([0-9]*)$', 1) AS port,
        trim(
            regexp_replace(
                part.query,
                '([?&])(?i:utm_[a-z_]*|fbclid|gclid|dclid|msclkid|mc_cid|mc_eid|igshid|yclid)=[^&]*',
                '\1',
                'g'
            ),
            '?&'
        ) AS query
    FROM split
),
canonical AS (
    SELECT
        row,
        CASE WHEN local THEN url ELSE path END AS path,
        CASE
            WHEN local THEN folder || url
            ELSE scheme || '://' || userinfo || host
                || CASE
                    WHEN port = '' OR (scheme = 'http' AND port = '80')
                        OR (scheme = 'https' AND port = '443') THEN ''
                    ELSE ':' || port
                END
                || CASE WHEN path = '' THEN '/' ELSE path END
                || CASE WHEN query = '' THEN '' ELSE '?' || regexp_replace(query, '&&+', '&', 'g') END
        END AS address,
        CASE WHEN NOT local THEN nullif(regexp_replace(host, '^www\.', ''), '') END AS domain,
        CASE
            WHEN url IS NULL OR url = '' THEN 'no_url'
            WHEN local THEN NULL
            WHEN scheme = '' THEN 'no_url'
            WHEN NOT list_contains($schemes, scheme) THEN 'url_scheme'
            WHEN host = '' OR TRY_CAST(nullif(port, '') AS BIGINT) > 65535 THEN 'no_url'
        END AS reason
    FROM hosts
)
SELECT
    row,
    md5_number_lower(address) AS url_key,
    domain,
    TRY(url_decode(regexp_extract(path, '([^/]*)/*$', 1))) AS tail,
    reason
FROM canonical
ORDER BY row
