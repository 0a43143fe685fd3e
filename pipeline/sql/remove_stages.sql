-- The catalogue's stages after $n more pairs were dropped by 70_images.
UPDATE stages SET
    rows_in = CASE WHEN stage IN ('75_cap', '80_pack') THEN rows_in - $n ELSE rows_in END,
    rows_out = rows_out - $n,
    dropped = CASE WHEN stage IN ('75_cap', '80_pack') THEN dropped ELSE dropped + $n END
WHERE stage IN ('70_images', '75_cap', '80_pack', '90_pairs', 'reshard')
