"""What one request may ask for: how large its document is, what it costs to answer, and how long the answer gets."""
