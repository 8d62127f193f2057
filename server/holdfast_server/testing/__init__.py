"""What tests and benchmarks need and the product does not: in-memory ports, and a tenant of real processes.

Shipped beside the product so that a fake is kept true by the same port suites as the real thing.
"""
