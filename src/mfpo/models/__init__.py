"""Load a vision-language model, render its chat, generate, and score responses."""
