"""JSON patch, merge patch and strategic merge patch; pure functions on dictionaries."""
