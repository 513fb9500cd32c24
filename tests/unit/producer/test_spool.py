from __future__ import annotations

import tracemalloc

import pytest

from producer.sources.item import Item
from producer.sources.spool import Spool


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_items_come_out_in_order(count):
    items = [Item(f"ü\n{n}.jpg", n or None, f"e{n}", n / 3 if n else None) for n in range(count)]
    with Spool() as spool:
        for item in items:
            spool.add(item)

        assert len(spool) == count
        assert list(spool) == items == list(spool)
        assert [spool.item(n) for n in range(0, count, 500)] == items[::500]


def test_dropped_items_do_not_come_out():
    with Spool() as spool:
        for n in range(1500):
            spool.add(Item(str(n)))
        for n in (0, 999, 1000, 1499, 999):
            spool.drop(n)

        assert len(spool) == 1496
        assert [item.key for item in spool] == [str(n) for n in range(1500) if n not in (0, 999, 1000, 1499)]


def test_memory_does_not_grow():
    def peak(count):
        tracemalloc.start()
        try:
            with Spool() as spool:
                for n in range(count):
                    spool.add(Item(f"folder/{n}.jpg", n, "e" * 32, 1.0))
                assert sum(1 for _ in spool) == count
                return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(30_000) < 1.5 * peak(3_000)
