"""Where the keywords are: one protocol, several backends."""
