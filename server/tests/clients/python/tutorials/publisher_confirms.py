#!/usr/bin/env python
"""Publisher confirms: one by one, the unroutable one, and many at once without waiting."""
import pika
from pika.exceptions import UnroutableError

MESSAGE_COUNT = 500


def publish_one_by_one():
    connection = pika.BlockingConnection(pika.ConnectionParameters(host='localhost'))
    channel = connection.channel()
    queue = channel.queue_declare(queue='', exclusive=True).method.queue
    channel.confirm_delivery()
    for i in range(MESSAGE_COUNT):
        channel.basic_publish(exchange='', routing_key=queue, body=str(i), mandatory=True)
    print(f"Published {MESSAGE_COUNT} messages individually")
    try:
        channel.basic_publish(exchange='', routing_key='nowhere', body='lost', mandatory=True)
    except UnroutableError as error:
        print(f"Returned: {len(error.messages)}")
    left = channel.queue_declare(queue=queue, passive=True).method.message_count
    print(f"Queued: {left}")
    connection.close()


class ManyAtOnce:
    """The asynchronous way: every confirm is handled when it comes."""

    def __init__(self):
        self.outstanding = set()
        self.connection = pika.SelectConnection(
            pika.ConnectionParameters(host='localhost'),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self.on_open),
            on_close_callback=lambda connection, reason: connection.ioloop.stop())

    def on_open(self, channel):
        self.channel = channel
        channel.queue_declare(
            queue='confirmed', durable=True, auto_delete=True, callback=self.on_declared)

    def on_declared(self, frame):
        self.channel.confirm_delivery(self.on_confirm, callback=self.on_selected)

    def on_selected(self, frame):
        persistent = pika.BasicProperties(delivery_mode=2)
        self.outstanding = set(range(1, MESSAGE_COUNT + 1))
        for i in range(MESSAGE_COUNT):
            self.channel.basic_publish(
                exchange='', routing_key='confirmed', body=str(i), properties=persistent)

    def on_confirm(self, frame):
        assert isinstance(frame.method, pika.spec.Basic.Ack), frame.method
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            confirmed = {seq for seq in self.outstanding if seq <= tag}
        else:
            confirmed = {tag}
        assert confirmed <= self.outstanding, f"{tag} confirmed twice"
        self.outstanding -= confirmed
        if not self.outstanding:
            print(f"Published {MESSAGE_COUNT} messages and handled confirms asynchronously")
            self.channel.queue_delete(queue='confirmed', callback=self.on_deleted)

    def on_deleted(self, frame):
        print(f"Queued: {frame.method.message_count}")
        self.connection.close()

    def run(self):
        self.connection.ioloop.start()


publish_one_by_one()
ManyAtOnce().run()
