"""The wire: request paths, content negotiation, reads, writes, watches, discovery, OpenAPI, tables, logs."""
