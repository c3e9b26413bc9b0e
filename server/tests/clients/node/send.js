// Hello world: puts one message into the queue `hello`.
const amqp = require('amqplib/callback_api');

amqp.connect(process.env.AMQP_URL || 'amqp://localhost', (error, connection) => {
  if (error) throw error;
  connection.createChannel((error, channel) => {
    if (error) throw error;
    const queue = 'hello';
    channel.assertQueue(queue, { durable: false });
    channel.sendToQueue(queue, Buffer.from('Hello World!'));
    console.log(" [x] Sent %s", 'Hello World!');
    channel.close(() => connection.close());
  });
});
