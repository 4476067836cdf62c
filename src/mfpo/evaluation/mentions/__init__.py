"""What an answer says: its words, objects and yes or no, as the official scripts find them."""
