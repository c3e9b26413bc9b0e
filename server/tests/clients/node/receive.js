// Hello world: prints what comes into the queue `hello`, until it is stopped.
const amqp = require('amqplib/callback_api');

amqp.connect(process.env.AMQP_URL || 'amqp://localhost', (error, connection) => {
  if (error) throw error;
  connection.createChannel((error, channel) => {
    if (error) throw error;
    const queue = 'hello';
    channel.assertQueue(queue, { durable: false });
    console.log(' [*] Waiting for messages in %s. To exit press CTRL+C', queue);
    channel.consume(queue, (message) => {
      console.log(' [x] Received %s', message.content.toString());
    }, { noAck: true });
  });
});
