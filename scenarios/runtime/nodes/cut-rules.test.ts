import t from 'tap';
import { connectionsIn, packetsIn, rulesFor } from './cut-rules.js';

t.test('rules drop packets by their source, and those of single connections', async (t) => {
  const rules = rulesFor({
    addresses: ['198.18.0.2', '198.18.0.3', '198.18.0.2'],
    connections: [{ fromAddress: '198.18.0.4', fromPort: 40000, toPort: 5432 }],
  });
  t.match(rules, /^table ip plugpull \{\}\ndelete table ip plugpull\ntable ip plugpull \{/);
  t.match(rules, /ip saddr \{ 198\.18\.0\.2, 198\.18\.0\.3 \} counter name swallowed drop/);
  t.match(rules, /ip saddr \. tcp sport \. tcp dport \{ 198\.18\.0\.4 \. 40000 \. 5432 \} counter/);
});

t.test('without cuts there are no rules', async (t) => {
  t.equal(rulesFor({ addresses: [], connections: [] }), 'table ip plugpull {}\ndelete table ip plugpull\n');
});

t.test('the number of dropped packets is read from the counter', async (t) => {
  const output = 'table ip plugpull {\n\tcounter swallowed {\n\t\tpackets 12 bytes 720\n\t}\n}\n';
  t.equal(packetsIn(output), 12);
  t.throws(() => packetsIn(''), /no counter/);
});

t.test('connections of both tables of sockets are found, without listeners and old ones', async (t) => {
  const line = (local: string, remote: string, state: string) =>
    `   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0`;
  const tables = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    line('00000000:1538', '00000000:0000', '0A'),
    line('020012C6:1538', '030012C6:9C40', '01'),
    line('020012C6:9C41', '030012C6:1538', '02'),
    line('020012C6:9C42', '030012C6:1538', '06'),
    line('0000000000000000FFFF0000020012C6:1539', '0000000000000000FFFF0000040012C6:9C43', '08'),
    line('00000000000000000000000001000000:1539', '00000000000000000000000001000000:9C43', '01'),
    '',
  ].join('\n');
  t.same(connectionsIn(tables), [
    { localPort: 5432, peerAddress: '198.18.0.3', peerPort: 40000 },
    { localPort: 40001, peerAddress: '198.18.0.3', peerPort: 5432 },
    { localPort: 5433, peerAddress: '198.18.0.4', peerPort: 40003 },
  ]);
});
