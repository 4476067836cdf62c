"""Modality-Fair Preference Optimization for vision-language models.

The folders follow the method: ``data`` reads rows, ``preferences`` builds rejected images (paper 3.1),
``training`` optimises text and image preference together (3.2), ``difficulty`` orders rows from easy to
hard (3.3), ``evaluation`` measures hallucination (4), ``scenes`` is a world that needs no download.
"""

__version__ = "0.1.0"
