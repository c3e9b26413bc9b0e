#!/usr/bin/env python
import pika

connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
channel = connection.channel()
channel.exchange_declare(exchange='logs',
                         exchange_type='fanout')

# A fresh queue, deleted when this connection is closed
result = channel.queue_declare(queue='', exclusive=True)
channel.queue_bind(exchange='logs', queue=result.method.queue)


def callback(ch, method, properties, body):
    print(" [x] %r" % body)


channel.basic_consume(queue=result.method.queue, auto_ack=True, on_message_callback=callback)
print(' [*] Waiting for logs. To exit press CTRL+C')
channel.start_consuming()
