"""Image preference data (paper 3.1): keywords, regions, noise."""
