-- All that is known of one row.
SELECT * FROM pairs WHERE row = $row
