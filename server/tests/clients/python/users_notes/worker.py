#!/usr/bin/env python
import time

import pika

connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
channel = connection.channel()
channel.queue_declare(queue='hello')


def callback(ch, method, properties, body):
    print(" [x] Received %r" % body)
    time.sleep(body.count(b'.') / 20)
    print(" [x] Done")
    ch.basic_ack(delivery_tag = method.delivery_tag)


channel.basic_consume(
    queue='hello',
    on_message_callback=callback
)
print(' [*] Waiting for messages. To exit press CTRL+C')
channel.start_consuming()
