"""`make demo`: the whole flow on real input, against the platform's real processes, as a client would go through it."""
