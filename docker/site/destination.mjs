// Receives mail at the end of the chain and prints one JSON line for each message, with the name of the
// delivering host.
//
//   node destination.mjs PORT
import { text } from 'node:stream/consumers';
import { SMTPServer } from 'smtp-server';

const server = new SMTPServer({
  authOptional: true,
  disabledCommands: ['STARTTLS', 'AUTH'],
  async onData(stream, session, done) {
    const message = await text(stream);
    const delivered = /^Subject: (.*)$/im.exec(message)?.[1]?.trim();
    process.stdout.write(`${JSON.stringify({ delivered, by: session.hostNameAppearsAs })}\n`);
    done();
  },
});
server.listen(Number(process.argv[2] ?? 2525), '0.0.0.0');
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
