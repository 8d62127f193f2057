"""The Kubernetes API behind a port: `port` says what the operator needs, `client` gives it over HTTP.

Nothing outside this package sees a library's exception or builds a URL; `errors` is the whole vocabulary of
failure.  May import the `kubernetes` library and aiohttp; imports nothing else of the operator.
"""
