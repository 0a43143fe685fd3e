-- The rows of uids, those that were kept first.
SELECT row FROM pairs WHERE uid IN (SELECT unnest($uids)) ORDER BY verdict = 'kept' DESC, row LIMIT 500
