"""The side of a client: reads requests as lines of JSON, calls the method of that name, answers with a line.

Not a test: `tests/blackbox/test_client_table.py` runs these programs, one per client.  Only the standard library is
used here, because every client brings libraries of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ENDPOINT = os.environ.get("AWS_ENDPOINT_URL_S3", "")
HOST = ENDPOINT.partition("://")[2]
ACCESS_KEY = os.environ.get("AWS_ACCESS_KEY_ID", "")
SECRET_KEY = os.environ.get("AWS_SECRET_ACCESS_KEY", "")
REGION = os.environ.get("AWS_REGION", "us-east-1")
COMMAND_SECONDS = 150


def run(*command: str, **options: object) -> bytes:
    """The output of a program that must end well."""
    done = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, **options
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}")
    return done.stdout


def serve(client: object) -> None:
    """Until the requests end."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(client, request.pop("do"), None)
        if method is None:
            answer = {"absent": True}
        else:
            try:
                answer = {"value": method(**request)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def write(path: str, body: bytes) -> None:
    Path(path).write_bytes(body)


def read(path: str) -> bytes:
    return Path(path).read_bytes()
