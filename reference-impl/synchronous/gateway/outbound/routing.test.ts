import t from 'tap';
import { bodiesOf, bodyForRecipients, envelopeOf, hasRoute } from './routing.js';

const routing = {
  routes: { 'a.example': '10.0.0.1:25', 'b.example': '10.0.0.2:25' },
  nextHop: '10.0.0.9:25',
  smsDomain: 'sms.invalid',
};
const data = Buffer.from('text');

t.test('each destination gets one record, whose recipients keep their order', async (t) => {
  const recipients = ['1@a.example', '2@c.example', '3@b.example', '4@A.EXAMPLE', '5@d.example'];
  t.strictSame(bodiesOf(routing, { sender: 's@x.example', recipients }, data), [
    {
      type: 'smtp',
      sender: 's@x.example',
      recipients: ['1@a.example', '4@A.EXAMPLE'],
      data,
      destination: '10.0.0.1:25',
    },
    { type: 'smtp', sender: 's@x.example', recipients: ['2@c.example', '5@d.example'], data },
    { type: 'smtp', sender: 's@x.example', recipients: ['3@b.example'], data, destination: '10.0.0.2:25' },
  ]);
});

t.test('a message between MSISDNs becomes an SMS record, which gives the envelope back', async (t) => {
  const envelope = { sender: '491701@sms.invalid', recipients: ['491702@sms.invalid', '491703@SMS.invalid'] };
  const [body, ...others] = bodiesOf(routing, envelope, data);
  t.strictSame(body, { type: 'sms', sender: 491701n, recipients: [491702n, 491703n], data });
  t.equal(others.length, 0);
  if (body === undefined) return;
  t.strictSame(envelopeOf(routing, body), {
    ...envelope,
    recipients: ['491702@sms.invalid', '491703@sms.invalid'],
  });
});

t.test('an SMS record holds 255 recipients, and further recipients get further records', async (t) => {
  const recipients = Array.from({ length: 600 }, (_, number) => `${1000 + number}@sms.invalid`);
  const bodies = bodiesOf(routing, { sender: '491701@sms.invalid', recipients }, data);
  t.strictSame(bodies.map((body) => body.recipients.length).sort(), [255, 255, 90]);
  t.strictSame(bodies.flatMap((body) => envelopeOf(routing, body).recipients).sort(), recipients);
});

t.test('a message without MSISDNs at both ends stays mail and keeps its addresses', async (t) => {
  const cases: [string, string][] = [
    ['a@x.example', '491702@sms.invalid'],
    ['491701@sms.invalid', '0491702@sms.invalid'],
    ['491701@sms.invalid', '1234567890123456@sms.invalid'],
    ['491701@sms.invalid', '491702@sms.example'],
    ['', '491702@sms.invalid'],
  ];
  for (const [sender, recipient] of cases) {
    t.match(bodiesOf(routing, { sender, recipients: [recipient] }, data), [
      { type: 'smtp', sender, recipients: [recipient] },
    ]);
  }
});

t.test('one message may have SMS recipients and mail recipients', async (t) => {
  const recipients = ['491702@sms.invalid', 'x@c.example'];
  const bodies = bodiesOf(routing, { sender: '491701@sms.invalid', recipients }, data);
  t.strictSame(
    bodies.map(({ type }) => type),
    ['sms', 'smtp'],
  );
});

t.test('a body can be reduced to some of its recipients', async (t) => {
  const [body] = bodiesOf(
    routing,
    { sender: 's@x.example', recipients: ['1@c.example', '2@c.example', '3@c.example'] },
    data,
  );
  t.match(body === undefined ? undefined : bodyForRecipients(body, new Set([0, 2])), {
    recipients: ['1@c.example', '3@c.example'],
  });
});

t.test('without a next hop only domains in routes are deliverable', async (t) => {
  const { nextHop: _, ...routed } = routing;
  t.ok(hasRoute(routed, 'a.example'));
  t.notOk(hasRoute(routed, 'c.example'));
  t.notOk(hasRoute(routed, 'constructor'));
  t.ok(hasRoute(routing, 'c.example'));
});
