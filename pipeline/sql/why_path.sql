-- Rows of a local folder of images that name a path.
SELECT row FROM pairs WHERE domain IS NULL AND trim(url, e' \t\r\n') = $path ORDER BY row LIMIT 50
