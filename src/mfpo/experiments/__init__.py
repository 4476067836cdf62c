"""The demo, and the paper's tables and figures as commands."""
