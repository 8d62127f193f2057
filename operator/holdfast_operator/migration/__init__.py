"""Ways in from other object stores' operators.  Pure but for the command; imports `tenant` only."""
