"""Field ownership: field sets, managedFields and server-side apply; pure functions on dictionaries."""
