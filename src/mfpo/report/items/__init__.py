"""Answers item by item, worst first: what ``mfpo report`` shows below its tables."""
