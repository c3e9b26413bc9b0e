"""Calls the tasks in the ways Celery offers and prints what came of each."""
import sys
import time

from celery import chain, chord, group
from tasks import add, app, at, fails, flaky, limited, slow, total

TIMEOUT = 40


def basic():
    print('add', add.delay(2, 3).get(timeout=TIMEOUT))
    print('ignored', add.apply_async((1, 1), ignore_result=True).id is not None)
    print('retried', flaky.delay(2).get(timeout=TIMEOUT))
    failed = fails.delay()
    try:
        failed.get(timeout=TIMEOUT)
    except ValueError as error:
        print('failed', error)
    print('group', group(add.s(i, i) for i in range(20))().get(timeout=TIMEOUT) == list(range(0, 40, 2)))
    print('chain', chain(add.s(1, 2), add.s(10), add.s(100))().get(timeout=TIMEOUT))


def later():
    sent = time.time()
    ran = at.apply_async(countdown=1.2).get(timeout=TIMEOUT)
    print('eta', 1.0 < ran - sent < 8)


def rate():
    results = [limited.delay() for _ in range(9)]
    times = sorted(result.get(timeout=TIMEOUT) for result in results)
    print('rate', 0.5 < times[-1] - times[0] < 15)


def chords():
    print('chord', chord((add.s(i, i) for i in range(10)), total.s())().get(timeout=TIMEOUT))


def control():
    print('ping', [list(answer.values()) for answer in app.control.ping(timeout=5)])
    task = slow.apply_async((0,), countdown=30)
    app.control.revoke(task.id)
    print('revoked')


def priority():
    slow.delay(1.5)
    time.sleep(0.3)
    at.apply_async(priority=0)  # whatever the worker has fetched ahead is this one
    results = [(number, at.apply_async(priority=number)) for number in (1, 5, 9, 3)]
    order = sorted((result.get(timeout=TIMEOUT), number) for number, result in results)
    print('priority', [number for _, number in order])


for name in sys.argv[1:]:
    globals()[name]()
