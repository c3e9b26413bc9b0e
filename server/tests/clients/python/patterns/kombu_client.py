"""kombu by itself: producers that declare and retry, simple queues, mixins, broadcast, priorities."""
import os
import socket
import threading

from kombu import Connection, Consumer, Exchange, Queue
from kombu.common import Broadcast, eventloop
from kombu.mixins import ConsumerMixin

URL = 'amqp://guest:guest@localhost:%s//' % os.environ['AMQP_PORT']
tasks = Exchange('tasks', type='topic')
queue = Queue('tasks.images', tasks, routing_key='images.#', max_priority=5, message_ttl=60)


def simple():
    with Connection(URL) as connection:
        simple_queue = connection.SimpleQueue('simple')
        for number in range(10):
            simple_queue.put({'number': number}, serializer='json', compression='zlib')
        got = []
        for _ in range(10):
            message = simple_queue.get(timeout=10)
            got.append(message.payload['number'])
            message.ack()
        print('simple', got == list(range(10)), simple_queue.qsize())
        simple_queue.close()


def declared_by_the_producer():
    with Connection(URL, transport_options={'confirm_publish': True}) as connection:
        producer = connection.Producer()
        for priority in (1, 5, 3):
            producer.publish(
                {'p': priority}, exchange=tasks, routing_key='images.resize', declare=[queue],
                retry=True, retry_policy={'max_retries': 3}, priority=priority)
        got = []
        with Consumer(connection, [queue], callbacks=[
                lambda body, message: (got.append(body['p']), message.ack())], prefetch_count=1):
            for _ in eventloop(connection, limit=3, timeout=10):
                pass
        print('priorities', got)
        print('returned', returned(connection))


def returned(connection):
    back = []
    producer = connection.Producer(on_return=lambda *args: back.append(args[1]))
    producer.publish('x', exchange=tasks, routing_key='nobody', mandatory=True)
    with Consumer(connection, [queue], callbacks=[lambda body, message: message.ack()]):
        try:
            connection.drain_events(timeout=1)
        except socket.timeout:
            pass
    return back


class Worker(ConsumerMixin):
    def __init__(self, connection, name, seen):
        self.connection, self.name, self.seen = connection, name, seen

    def get_consumers(self, consumer, channel):
        return [consumer([Broadcast('news')], callbacks=[self.on_news])]

    def on_consume_ready(self, connection, channel, consumers, **kwargs):
        self.seen['ready'].release()

    def on_news(self, body, message):
        message.ack()
        self.seen[self.name] = body
        self.should_stop = True


def broadcast():
    seen = {'ready': threading.Semaphore(0)}
    workers = [Worker(Connection(URL), name, seen) for name in 'ab']
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
        seen['ready'].acquire()
    with Connection(URL) as connection:
        connection.Producer().publish('hello', exchange=Exchange('news', type='fanout'))
    for thread in threads:
        thread.join()
    print('broadcast', seen['a'], seen['b'])


simple()
declared_by_the_producer()
broadcast()
