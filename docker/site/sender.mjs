// Sends mail to the first gateway and prints one JSON line for each message that the gateway has confirmed. It
// is plain Node, because it is part of the site that the compose file describes and is not compiled.
//
//   node sender.mjs HOST:PORT [MESSAGES]     without a number it sends one message a second, for ever
import { setTimeout as delay } from 'node:timers/promises';
import { createTransport } from 'nodemailer';

const [, , edge = 'edge:2525', limit] = process.argv;
const [host, port] = edge.split(':');
const messages = limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
const pauseMs = limit === undefined ? 1000 : 0;

for (let number = 1; number <= messages; number++) {
  const id = `${process.pid}-${Date.now()}-${number}`;
  // Without a confirmation the outcome is unknown. Send the same message again, as every mail sender does.
  while (!(await send(id))) await delay(200);
  process.stdout.write(`${JSON.stringify({ confirmed: id })}\n`);
  await delay(pauseMs);
}

async function send(id) {
  const transport = createTransport({ host, port: Number(port), secure: false, ignoreTLS: true });
  try {
    await transport.sendMail({
      from: 'sender@site.example',
      to: 'someone@destination.example',
      subject: id,
      text: `message ${id}`,
    });
    return true;
  } catch (error) {
    process.stderr.write(`not confirmed: ${error.message}\n`);
    return false;
  } finally {
    transport.close();
  }
}
