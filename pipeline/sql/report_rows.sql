-- All that is known of some rows.
SELECT * FROM pairs WHERE row IN (SELECT unnest($rows)) ORDER BY row
