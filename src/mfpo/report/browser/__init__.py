"""What ``mfpo browse`` writes: rows and statistics of a dataset, and the page that shows them."""
