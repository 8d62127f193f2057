"""Which writes ask the object layer for reduced redundancy, and since when."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_server.api.bucket_record import FORMAT, REDUCED_FORMAT, decode, document_name
from holdfast_server.api.services import Services
from holdfast_server.objects.port import Redundancy
from holdfast_server.testing.boto import served_client
from holdfast_server.testing.memory_objects import MemoryObjects
from holdfast_server.testing.memory_services import memory_services

BUCKET = "classes"
CLASS = "REDUCED_REDUNDANCY"
FULL, REDUCED = Redundancy.FULL, Redundancy.REDUCED


class Pods:
    """What the pods of the tenant are said to know."""

    def __init__(self) -> None:
        self.objects = MemoryObjects(memory_services().clock)
        self.all_reduce = self.reached_reduce = True

    def services(self) -> Services:
        return dataclasses.replace(
            memory_services(self.objects),  # type: ignore[arg-type]
            every_pod_reduces=lambda: self.all_reduce and self.reached_reduce,
            every_pod_in_reach_reduces=lambda: self.reached_reduce,
        )

    def said(self) -> list[Redundancy]:
        """Since it was asked last."""
        said = list(self.objects.redundancies)
        self.objects.redundancies.clear()
        return said

    def format(self) -> int:
        return decode(self.objects._documents[document_name(BUCKET)].body).format


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def s3(pods: Pods) -> Iterator[Any]:
    with served_client(pods.services(), BUCKET) as client:
        yield client


def test_every_way_to_write_an_object_asks_for_its_class(s3: Any, pods: Pods) -> None:
    s3.put_object(Bucket=BUCKET, Key="plain", Body=b"x")
    assert (pods.said(), pods.format()) == ([FULL], FORMAT)
    s3.put_object(Bucket=BUCKET, Key="reduced", Body=b"x", StorageClass=CLASS)
    assert (pods.said(), pods.format()) == ([REDUCED], REDUCED_FORMAT)
    s3.put_object(Bucket=BUCKET, Key="plain", Body=b"x", StorageClass="STANDARD")
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/reduced")
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/plain", StorageClass=CLASS)
    s3.copy_object(Bucket=BUCKET, Key="reduced", CopySource=f"{BUCKET}/reduced", StorageClass="STANDARD")
    assert pods.said() == [FULL, FULL, REDUCED, FULL]
    s3.create_multipart_upload(Bucket=BUCKET, Key="parts", StorageClass=CLASS)
    s3.create_multipart_upload(Bucket=BUCKET, Key="parts")
    assert pods.said() == [REDUCED, FULL]


def test_before_every_pod_knows_of_it_nothing_is_reduced_and_everything_is_taken(s3: Any, pods: Pods) -> None:
    pods.all_reduce = False
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", StorageClass=CLASS)
    s3.create_multipart_upload(Bucket=BUCKET, Key="parts", StorageClass=CLASS)
    assert (pods.said(), pods.format()) == ([FULL, FULL], FORMAT)
    assert s3.head_object(Bucket=BUCKET, Key="k")["StorageClass"] == CLASS


def test_once_begun_a_pod_that_is_away_is_no_hindrance_and_one_that_has_gone_back_is(s3: Any, pods: Pods) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", StorageClass=CLASS)
    pods.all_reduce = False
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", StorageClass=CLASS)
    pods.reached_reduce = False
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", StorageClass=CLASS)
    assert pods.said() == [REDUCED, REDUCED, FULL]
