import { ignoreFailedStreams, log } from '../../host/console.js';
import { CountingSink } from '../smtp-sink.js';
import { compare, formatComparison } from './compare.js';
import {
  makeWorkplace,
  type Server,
  startPostfix,
  startReference,
  startSmtpServer,
  whyNoPostfix,
} from './servers.js';

/** Sends the same bytes to the reference gateway, to smtp-server and to Postfix, and prints their reply codes. */
ignoreFailedStreams();
const workplace = await makeWorkplace();
const sink = new CountingSink();
const servers: Server[] = [];
try {
  const sinkPort = await sink.listen();
  servers.push(await startReference(workplace, sinkPort), await startSmtpServer(workplace));
  const why = whyNoPostfix();
  if (why === undefined) servers.push(await startPostfix(workplace, sinkPort));
  else log(`postfix: not measured: ${why}`);
  if (workplace.certificate === undefined) log('STARTTLS: not measured: openssl is not installed');
  process.stdout.write(formatComparison(await compare(servers)));
} finally {
  for (const server of servers) await server.stop();
  sink.close();
  await workplace.remove();
}
