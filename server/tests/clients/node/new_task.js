// Work queue: publishes one persistent task and waits for its confirm.
const amqp = require('amqplib');

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL || 'amqp://localhost');
  const channel = await connection.createConfirmChannel();
  const queue = 'node_tasks';
  const message = process.argv.slice(2).join(' ') || 'Hello World!';

  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  channel.sendToQueue(queue, Buffer.from(message), { persistent: true });
  await channel.waitForConfirms();
  console.log(" [x] Sent '%s'", message);
  await connection.close();
}

main();
