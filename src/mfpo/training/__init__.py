"""Preference training on text and image together (paper 3.2)."""
