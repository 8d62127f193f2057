"""What is special about built-in kinds: defaults, first status, rules beyond the schema."""
