-- The stages in order, with what came in and what went on.
-- reports: a view with nth, stage, rows_in, rows_out.
SELECT nth, stage, rows_in, rows_out, rows_in - rows_out AS dropped FROM reports ORDER BY nth
