"""A Celery application as its users write it; QUEUE_TYPE and RESULT_BACKEND come from the test."""
import os
import time

from celery import Celery
from kombu import Queue

app = Celery(
    'tasks',
    broker='amqp://guest:guest@localhost:%s//' % os.environ['AMQP_PORT'],
    backend=os.environ['RESULT_BACKEND'],
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=60,
    result_chord_retry_interval=0.2,
    task_default_queue='celery-' + os.environ['QUEUE_TYPE'],
    worker_prefetch_multiplier=1,
)
if os.environ['QUEUE_TYPE'] == 'quorum':
    app.conf.update(
        broker_transport_options={'confirm_publish': True},
        task_default_queue_type='quorum',
        task_acks_late=True,
        worker_detect_quorum_queues=True,
    )
elif os.environ['QUEUE_TYPE'] == 'priority':
    app.conf.update(
        task_queues=[Queue('celery-priority', queue_arguments={'x-max-priority': 10})],
        task_acks_late=True,
    )


@app.task
def add(x, y):
    return x + y


@app.task(bind=True, max_retries=3, default_retry_delay=0.1)
def flaky(self, needed):
    if self.request.retries < needed:
        raise self.retry()
    return self.request.retries


@app.task
def fails():
    raise ValueError('on purpose')


@app.task
def at():
    return time.time()


@app.task(rate_limit='10/s')
def limited():
    return time.time()


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def slow(seconds):
    time.sleep(seconds)
