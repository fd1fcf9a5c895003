"""Waking the Raft thread: once is enough, often is no harm, and after closing nothing happens."""

import os
import select

from raft.waker import Waker


class OnePoller:
    def __init__(self) -> None:
        self._poll = select.poll()

    def subscribe(self, descr, callback, eventMask) -> None:
        self._callback = callback
        self._poll.register(descr, select.POLLIN)

    def unsubscribe(self, descr) -> None:
        self._poll.unregister(descr)

    def poll(self) -> int:
        events = self._poll.poll(0)
        for descr, _ in events:
            self._callback(descr, 1)
        return len(events)


def test_any_number_of_calls_ends_one_wait():
    poller = OnePoller()
    waker = Waker(poller)
    assert poller.poll() == 0
    for _ in range(100_000):
        waker.notify()
    assert poller.poll() == 1
    assert poller.poll() == 0
    waker.close()


def test_after_closing_nothing_is_written_anywhere():
    poller = OnePoller()
    waker = Waker(poller)
    waker.close()
    reader, writer = os.pipe()  # likely gets the number of the closed descriptor
    waker.notify()
    waker.close()
    assert select.select([reader], [], [], 0)[0] == []
    os.close(reader)
    os.close(writer)
