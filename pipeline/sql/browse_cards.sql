-- What a list of pairs shows of each.
SELECT
    row, uid, url, domain, text, raw_text, verdict, reason, stage, duplicate_of, key, width, height
FROM pairs
WHERE row IN (SELECT unnest($rows))
