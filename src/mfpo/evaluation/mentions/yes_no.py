"""What an answer to a yes/no question says."""

from __future__ import annotations

import re


def yes_or_no(answer: str) -> bool | None:
    """True if the first word is yes, False if it is no, else None."""
    match = re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)
    return None if match is None else match[1].lower() == "yes"
