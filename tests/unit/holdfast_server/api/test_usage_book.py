"""What buckets hold as several pods know it: nothing forgotten, nothing counted twice for long."""

from __future__ import annotations

import random

import pytest

from holdfast_server.api.usage_book import Counted, Place, UsageBook
from holdfast_server.contract.healing import BucketUsage

BUCKET = b"b" * 16
HERE = Place(BUCKET, "set 0")
SETS = ["set 0", "set 1"]


def counted(generation: int, size_bytes: int, versions: int = 0) -> Counted:
    usage = BucketUsage(bucket_id=BUCKET.hex(), objects=versions, versions=versions, size_bytes=size_bytes)
    return Counted(generation, usage, generation)


def size(book: UsageBook) -> int:
    return book.used(BUCKET, SETS).size_bytes


def test_what_was_written_since_the_count_is_added_to_it() -> None:
    book = UsageBook()
    book.begin(HERE, 1)
    book.add(HERE, 5, 1)
    book.counted(HERE, counted(1, 100, 10))
    book.add(HERE, 7, 1)
    book.add(HERE, -2, -1)
    used = book.used(BUCKET, SETS)
    assert (used.size_bytes, used.versions) == (110, 11)


def test_what_was_written_before_the_count_began_is_in_it() -> None:
    book = UsageBook()
    book.add(HERE, 50, 1)
    assert size(book) == 50, "until there is a count"
    book.begin(HERE, 1)
    book.counted(HERE, counted(1, 60))
    assert size(book) == 60
    book.begin(HERE, 2)
    book.add(HERE, 3, 0)
    assert size(book) == 63, "the last count is in use while the next goes on"
    book.counted(HERE, counted(2, 64))
    assert size(book) == 67, "and what was written meanwhile may be in both"


def test_a_pod_that_missed_the_beginning_of_a_count_says_too_much_rather_than_too_little() -> None:
    book = UsageBook()
    book.counted(HERE, counted(1, 10))
    book.add(HERE, 5, 0)
    book.counted(HERE, counted(2, 15))
    assert size(book) == 20


def test_it_is_known_once_every_set_is_counted() -> None:
    book = UsageBook()
    book.counted(HERE, counted(3, 1))
    assert not book.used(BUCKET, SETS).known
    book.counted(Place(BUCKET, "set 1"), counted(9, 2))
    used = book.used(BUCKET, SETS)
    assert (used.known, used.size_bytes, used.counted_ms) == (True, 3, 3)


def test_an_older_count_that_comes_late_is_passed_over() -> None:
    book = UsageBook()
    book.counted(HERE, counted(5, 50))
    book.counted(HERE, counted(4, 1))
    assert size(book) == 50


def test_what_a_pod_had_written_stays_known_when_it_dies_until_the_next_count() -> None:
    book, other = UsageBook(), UsageBook()
    for one in (book, other):
        one.begin(HERE, 1)
        one.counted(HERE, counted(1, 10))
    other.add(HERE, 4, 1)
    book.told("its life", other.own_sums([HERE]))
    book.forget_lives([])
    assert size(book) == 14
    book.counted(HERE, counted(2, 14))
    assert size(book) == 14
    book.forget_lives([])
    assert not book._others


def test_buckets_that_are_gone_are_forgotten() -> None:
    book = UsageBook()
    book.counted(HERE, counted(1, 10))
    book.add(HERE, 1, 1)
    book.told("x", book.own_sums([HERE]))
    book.forget_buckets(set())
    assert book.used(BUCKET, SETS) == (0, 0, 0, 0, 0, False)


@pytest.mark.parametrize("seed", range(20))
def test_several_pods_never_know_too_little_once_they_have_told_each_other(seed: int) -> None:
    """Writes, counts that take time and see each write or not, deaths; every message arrives before it matters."""
    chance = random.Random(seed)
    books = {f"life {n}": UsageBook() for n in range(3)}
    truth = generation = 0
    under_way: tuple[int, int] | None = None
    for _ in range(300):
        step = chance.random()
        if step < 0.7:
            brought = chance.randrange(10)
            truth += brought
            chance.choice(list(books.values())).add(HERE, brought, 1)
            if under_way is not None and chance.random() < 0.5:
                under_way = (under_way[0], under_way[1] + brought)
        elif under_way is None:
            generation += 1
            for book in books.values():
                book.begin(HERE, generation)
            under_way = (generation, truth)
        else:
            for book in books.values():
                book.counted(HERE, counted(*under_way))
            under_way = None
        for life, book in books.items():
            for other in books.values():
                if other is not book:
                    other.told(
                        life,
                        [(place, type(one)(one.generation, one.size_bytes)) for place, one in book.own_sums([HERE])],
                    )
        assert all(size(book) >= truth for book in books.values())
    for book in books.values():
        book.begin(HERE, generation + 1)
    for book in books.values():
        book.counted(HERE, counted(generation + 1, truth))
    for life, book in books.items():
        for other in books.values():
            if other is not book:
                other.told(life, book.own_sums([HERE]))
    assert [size(book) for book in books.values()] == [truth] * 3, "a count in peace sets it right"
