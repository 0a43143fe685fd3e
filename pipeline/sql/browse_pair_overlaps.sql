-- Images of evaluation sets that show the picture of a row.
SELECT set, key, how, distance FROM eval_overlaps WHERE row = $row ORDER BY set, key LIMIT 20
