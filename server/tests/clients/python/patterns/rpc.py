"""Requests and replies as Spring's RabbitTemplate makes them: direct reply-to, a temporary queue,
a queue of one's own; several callers at once."""
import threading
import uuid

import pika


def connect():
    connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
    return connection, connection.channel()


def serve(ready):
    connection, channel = connect()
    channel.queue_declare('square', durable=True)
    channel.basic_qos(prefetch_count=250)

    def on_request(ch, method, properties, body):
        if body == b'stop':
            ch.basic_ack(method.delivery_tag)
            ch.stop_consuming()
            return
        answer = str(int(body) ** 2)
        ch.basic_publish('', properties.reply_to, answer, pika.BasicProperties(
            correlation_id=properties.correlation_id))
        ch.basic_ack(method.delivery_tag)

    channel.basic_consume('square', on_request)
    ready.set()
    channel.start_consuming()
    connection.close()


def ask(channel, reply_to, numbers):
    waiting = {}
    for number in numbers:
        correlation_id = str(uuid.uuid4())
        waiting[correlation_id] = number
        channel.basic_publish('', 'square', str(number), pika.BasicProperties(
            reply_to=reply_to, correlation_id=correlation_id), mandatory=True)
    right = 0
    for _, properties, body in channel.consume(reply_to, auto_ack=True, inactivity_timeout=20):
        if body is None:
            break
        right += int(body) == waiting.pop(properties.correlation_id) ** 2
        if not waiting:
            break
    channel.cancel()
    return right


def direct(count, results):
    connection, channel = connect()
    # As RabbitTemplate: the consumer of replies is there before the first request.
    answers = {}
    channel.basic_consume('amq.rabbitmq.reply-to', lambda ch, m, p, b: answers.update(
        {p.correlation_id: int(b)}), auto_ack=True)
    for number in range(count):
        channel.basic_publish('', 'square', str(number), pika.BasicProperties(
            reply_to='amq.rabbitmq.reply-to', correlation_id=str(number)))
    while len(answers) < count:
        connection.process_data_events(time_limit=20)
    results.append(all(answers[str(number)] == number ** 2 for number in range(count)))
    connection.close()


ready = threading.Event()
server = threading.Thread(target=serve, args=(ready,))
server.start()
ready.wait()

results = []
callers = [threading.Thread(target=direct, args=(100, results)) for _ in range(4)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
print('direct', results == [True] * 4)

connection, channel = connect()
temporary = channel.queue_declare('', exclusive=True, auto_delete=True).method.queue
print('temporary', ask(channel, temporary, range(50)))
channel.queue_declare('replies', durable=True)
print('own queue', ask(channel, 'replies', range(50)))
channel.basic_publish('', 'square', 'stop')
server.join()
connection.close()
