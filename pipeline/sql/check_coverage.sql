-- How well the rows that a stage decided about cover those that it received.
-- received, decided: views with one column, row.
SELECT
    (SELECT count(*) FROM received) AS wanted,
    (SELECT count(*) FROM decided) AS got,
    (SELECT count(*) FROM received ANTI JOIN decided USING (row)) AS missing,
    (SELECT count(*) - count(DISTINCT row) FROM decided) AS twice
