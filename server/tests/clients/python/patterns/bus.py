"""The topology MassTransit and its like declare: an exchange a message type, bound to those of its
interfaces and to one exchange an endpoint, which feeds the endpoint's queue; errors and retries in
queues beside it."""
import json

import pika

connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
channel = connection.channel()
channel.confirm_delivery()
channel.basic_qos(prefetch_count=16)


def exchange(name, **options):
    channel.exchange_declare(name, 'fanout', durable=True, **options)


def endpoint(name):
    exchange(name)
    channel.queue_declare(name, durable=True)
    channel.queue_bind(name, name)


def subscribe(endpoint_name, *types):
    for name in types:
        exchange(name)
        channel.exchange_bind(endpoint_name, name)


def publish(name, body, **properties):
    channel.basic_publish(
        name, '', json.dumps(body),
        pika.BasicProperties(
            delivery_mode=2, content_type='application/vnd.masstransit+json',
            headers={'publishId': '1'}, **properties),
        mandatory=True)


exchange('Contracts:Order')
exchange('Contracts:OrderSubmitted')
channel.exchange_bind('Contracts:Order', 'Contracts:OrderSubmitted')  # a type implements another
channel.exchange_bind('Contracts:OrderSubmitted', 'Contracts:Order')  # and a circle harms nobody
endpoint('billing')
endpoint('audit')
subscribe('billing', 'Contracts:OrderSubmitted')
subscribe('audit', 'Contracts:Order', 'Contracts:OrderSubmitted')
channel.queue_declare('bus-1', auto_delete=True, arguments={'x-expires': 60000})
exchange('bus-1', auto_delete=True)
channel.queue_bind('bus-1', 'bus-1')
exchange('billing_error')
channel.queue_declare('billing_error', durable=True)
channel.queue_bind('billing_error', 'billing_error')
channel.queue_declare('billing_delay', durable=True, arguments={
    'x-dead-letter-exchange': 'billing', 'x-message-ttl': 200})

publish('Contracts:OrderSubmitted', {'id': 1}, reply_to='bus-1')


def get(queue):
    for method, properties, body in channel.consume(queue, inactivity_timeout=10):
        channel.cancel()
        if method is not None:
            return method, properties, body
        raise SystemExit('nothing in ' + queue)


method, properties, body = get('billing')
print('billing', json.loads(body), method.exchange)
channel.basic_publish('', 'billing_delay', body, pika.BasicProperties(delivery_mode=2))
channel.basic_ack(method.delivery_tag)
method, properties, body = get('billing')
print('retried', json.loads(body), properties.headers['x-death'][0]['reason'])
channel.basic_publish('billing_error', '', body, pika.BasicProperties(
    delivery_mode=2, headers={'MT-Reason': 'fault'}), mandatory=True)
channel.basic_ack(method.delivery_tag)
print('errors', channel.queue_declare('billing_error', passive=True).method.message_count)
print('audit', channel.queue_declare('audit', passive=True).method.message_count)
try:
    exchange('Contracts:Nobody')
    publish('Contracts:Nobody', {})
except pika.exceptions.UnroutableError as error:
    print('returned', len(error.messages))
connection.close()
