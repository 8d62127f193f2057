"""The console: reserved.  There is no web page yet, and nothing listens on port 9001; `holdfast admin` and
`/health/cluster` show what it would."""
