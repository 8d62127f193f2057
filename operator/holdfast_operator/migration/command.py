"""`holdfast-operator convert-minio-tenant`: YAML of a MinIO Tenant in, YAML to apply out, notes for the person.

Exit code 0 if there is something to apply, 1 if not.  The manifests, which hold keys where the input did, go to
standard output and nowhere else; the notes, without any key, go to standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TextIO

import yaml

from holdfast_operator.migration.minio import ConversionError, convert

NAME = "convert-minio-tenant"


def run(arguments: Sequence[str], standard_input: TextIO, output: TextIO, notes: TextIO) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"holdfast-operator {NAME}",
        description="Turn a MinIO Tenant (minio.min.io/v2) into a Holdfast Tenant. Give it the Secrets as well, "
        "`kubectl get tenants.minio.min.io,secrets -o yaml`, and keys and parity are kept.",
    )
    parser.add_argument(
        "file", help="YAML with the Tenant and, if they are to be kept, its Secrets; - for standard input"
    )
    given = parser.parse_args(arguments)
    try:
        if given.file == "-":
            converted = convert(yaml.safe_load_all(standard_input))
        else:
            with open(given.file, encoding="utf-8") as file:
                converted = convert(yaml.safe_load_all(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ConversionError) as error:
        print(f"{NAME}: {error}", file=notes)
        return 1
    yaml.safe_dump_all(converted.manifests, output, sort_keys=False)
    for note in converted.notes:
        print(note, file=notes)
    return 0
