"""A bounded table keeps what was asked for last, also when several threads ask."""

from __future__ import annotations

import threading
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from graphc.recent import Recent


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 6))))
def test_it_keeps_what_was_asked_for_last(most: int, asked: list[tuple[bool, int]]) -> None:
    table: Recent[object] = Recent(most)
    expected: OrderedDict[int, object] = OrderedDict()
    for makes, key in asked:
        made = object()
        found = table.get_or_make(key, lambda made=made: made) if makes else table.get(key)
        if makes:
            expected.setdefault(key, made)
        assert found is expected.get(key)
        if key in expected:
            expected.move_to_end(key)
        if len(expected) > most:
            expected.popitem(last=False)
        assert len(table) == len(expected)


def test_two_threads_that_make_an_entry_get_the_same() -> None:
    table: Recent[object] = Recent(4)
    both = threading.Barrier(2)
    found = []

    def ask() -> None:
        found.append(table.get_or_make("key", lambda: (both.wait(timeout=60), object())[1]))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1] is table.get("key")
