"""`make soak`: what 200 tenants do at once to a whole platform, for half an hour, and what of it is left behind."""
