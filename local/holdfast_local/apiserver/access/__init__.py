"""Who may do what: bearer tokens, RBAC, access reviews and the default roles."""
