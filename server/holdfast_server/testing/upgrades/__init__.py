"""A server of the next release, made up: to see today's beside it.  Nothing here is used by a running server."""
