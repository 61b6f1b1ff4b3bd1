"""Training of every part: one command and one recipe per stage."""
