"""Easy-to-hard alignment (paper 3.3): entropy of a row, and the stages made from it."""
