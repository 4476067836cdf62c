"""Ways to decode that `transformers` does not have: the baselines VCD and OPERA."""
