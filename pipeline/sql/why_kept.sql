-- Address and caption of the pair of lowest rank that was kept.
SELECT url, raw_text FROM pairs WHERE verdict = 'kept' ORDER BY rank, row LIMIT 1
