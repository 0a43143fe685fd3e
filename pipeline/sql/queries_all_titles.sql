-- The titles of articles in an all-titles file: one title a line, or namespace and title.
SELECT CASE WHEN contains(line, chr(9)) THEN split_part(line, chr(9), 2) ELSE line END AS title
FROM read_csv(
    $path, columns = {'line': 'VARCHAR'}, delim = chr(31), quote = '', escape = '',
    header = false, auto_detect = false, ignore_errors = true
)
WHERE NOT contains(line, chr(9)) OR split_part(line, chr(9), 1) = '0'
