"""Background work of the API server itself: garbage collection, namespaces, disruption budgets, expiry."""
