"""`wit report RUN ...`: training runs as one page."""
