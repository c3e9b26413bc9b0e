// Work queue: takes one task at a time and acknowledges it when done; a dot is some work.
const amqp = require('amqplib');

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL || 'amqp://localhost');
  const channel = await connection.createChannel();
  const queue = 'node_tasks';

  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.prefetch(1);
  console.log(' [*] Waiting for messages in %s. To exit press CTRL+C', queue);
  await channel.consume(queue, (message) => {
    const text = message.content.toString();
    console.log(' [x] Received %s', text);
    setTimeout(() => {
      console.log(' [x] Done');
      channel.ack(message);
    }, (text.split('.').length - 1) * 100);
  });
}

main();
