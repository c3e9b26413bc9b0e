"""Lets programs that name no port, as written for a broker on its usual one, reach the broker
under test: AMQP_PORT takes the place of pika's default port."""
import os

import pika

pika.connection.Parameters.DEFAULT_PORT = int(os.environ["AMQP_PORT"])
