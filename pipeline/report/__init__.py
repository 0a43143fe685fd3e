"""`wit report CORPUS`: a corpus as one page."""
