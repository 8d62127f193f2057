"""`Table` answers: what `kubectl get` prints. Columns of custom kinds come from additionalPrinterColumns."""

import datetime
from collections.abc import Callable, Sequence
from typing import Any

from holdfast_local.apiserver.http.columns import BUILTIN_COLUMNS, Column, age
from holdfast_local.apiserver.http.json_path import find
from holdfast_local.apiserver.resources import Object, Resource

_NAME = "Name must be unique within a namespace."
_AGE = "CreationTimestamp is a timestamp representing the server time when this object was created."


def columns_of(resource: Resource) -> Sequence[Column]:
    """The columns that a kind is printed with."""
    if resource.custom and resource.columns:
        return [_name_column(), *(_custom_column(column) for column in resource.columns)]
    if not resource.custom and resource.kind in BUILTIN_COLUMNS:
        return BUILTIN_COLUMNS[resource.kind]
    return [_name_column(), Column("Age", lambda obj, now: age(obj["metadata"].get("creationTimestamp"), now))]


def table(
    resource: Resource,
    objects: Sequence[Object],
    metadata: dict[str, Any],
    now: datetime.datetime,
    *,
    include: str = "Metadata",
    header: bool = True,
) -> Object:
    """One row per object; `include` is what each row carries of its object: None, Metadata or Object."""
    columns = columns_of(resource)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [_definition(column) for column in columns] if header else [],
        "rows": [_row(columns, obj, now, include) for obj in objects],
    }


def _row(columns: Sequence[Column], obj: Object, now: datetime.datetime, include: str) -> Object:
    row: Object = {"cells": [column.cell(obj, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        partial = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": obj["metadata"]}
        row["object"] = partial
    return row


def _definition(column: Column) -> Object:
    return {
        "name": column.title,
        "type": column.type,
        "format": "name" if column.title == "Name" else "",
        "description": {"Name": _NAME, "Age": _AGE}.get(column.title, ""),
        "priority": column.priority,
    }


def _name_column() -> Column:
    return Column("Name", lambda obj, now: obj["metadata"]["name"])


def _custom_column(definition: Object) -> Column:
    path = str(definition.get("jsonPath", ""))
    kind = str(definition.get("type", "string"))
    cell: Callable[[Object, datetime.datetime], Any]
    if kind == "date":

        def cell(obj: Object, now: datetime.datetime) -> Any:
            return age(find(obj, path), now)
    else:

        def cell(obj: Object, now: datetime.datetime) -> Any:
            value = find(obj, path)
            if kind in ("integer", "number", "boolean") or value is None:
                return value
            return value if isinstance(value, str) else str(value)

    title = str(definition.get("name", ""))
    return Column(title, cell, type=kind, priority=int(definition.get("priority") or 0))
