"""The ways in which people write preference rows, and how each is read; the table of them is in ``table``."""
