import type { Body } from '../../record/body.js';

/** Where a worker's mail goes. */
export interface Routing {
  /** By the lower-case domain of a recipient: `host:port`. */
  routes: Readonly<Record<string, string>>;
  /** For every other domain. */
  nextHop?: string | undefined;
  /** The lower-case domain whose addresses of digits are MSISDNs. */
  smsDomain: string;
}

/** What a message was sent with, addresses without angle brackets. */
export interface Envelope {
  sender: string;
  recipients: readonly string[];
}

/** The number of recipients is one byte in an SMS record [0027]. */
const MAX_SMS_RECIPIENTS = 255;
/** E.164: up to 15 digits; a leading zero would be lost in a whole number, so such an address stays text. */
const MSISDN = /^([1-9]\d{0,14})@(.+)$/;

/** Is there a way to recipients of this lower-case domain? */
export function hasRoute(routing: Routing, domain: string): boolean {
  return routing.nextHop !== undefined || Object.hasOwn(routing.routes, domain);
}

/**
 * One record body per destination and type [0027, 0036]. Where a route names the destination, the record carries it
 * as its delivery instruction; what goes to the next hop is looked up when it is delivered.
 */
export function bodiesOf(routing: Routing, envelope: Envelope, data: Buffer): Body[] {
  const senderMsisdn = msisdnOf(routing, envelope.sender);
  const bodies = new Map<string, Body>();
  for (const recipient of envelope.recipients) {
    const destination = routeOf(routing, recipient);
    const msisdn = senderMsisdn === undefined ? undefined : msisdnOf(routing, recipient);
    const key = `${msisdn === undefined ? 'smtp' : 'sms'} ${destination ?? ''}`;
    const body = bodies.get(key);
    if (body?.type === 'smtp') body.recipients.push(recipient);
    else if (body?.type === 'sms' && msisdn !== undefined && body.recipients.length < MAX_SMS_RECIPIENTS) {
      body.recipients.push(msisdn);
    } else {
      const instruction = destination === undefined ? {} : { destination };
      // A record that is full makes room for the next of its kind.
      if (body !== undefined) bodies.set(`${key} ${bodies.size}`, body);
      bodies.set(
        key,
        senderMsisdn !== undefined && msisdn !== undefined
          ? { type: 'sms', sender: senderMsisdn, recipients: [msisdn], data, ...instruction }
          : { type: 'smtp', sender: envelope.sender, recipients: [recipient], data, ...instruction },
      );
    }
  }
  return [...bodies.values()];
}

/** The envelope that a record is delivered with; MSISDNs become addresses in the SMS domain again. */
export function envelopeOf(routing: Routing, body: Body): Envelope {
  if (body.type === 'smtp') return body;
  const address = (msisdn: bigint) => `${msisdn}@${routing.smsDomain}`;
  return { sender: address(body.sender), recipients: body.recipients.map(address) };
}

/** The same body for those of its recipients (as positions) that are still to be served. */
export function bodyForRecipients(body: Body, positions: ReadonlySet<number>): Body {
  const isSelected = (_: unknown, position: number) => positions.has(position);
  return body.type === 'smtp'
    ? { ...body, recipients: body.recipients.filter(isSelected) }
    : { ...body, recipients: body.recipients.filter(isSelected) };
}

function routeOf(routing: Routing, recipient: string): string | undefined {
  const domain = recipient.slice(recipient.lastIndexOf('@') + 1).toLowerCase();
  return Object.hasOwn(routing.routes, domain) ? routing.routes[domain] : undefined;
}

function msisdnOf(routing: Routing, address: string): bigint | undefined {
  const match = MSISDN.exec(address);
  return match?.[1] !== undefined && match[2]?.toLowerCase() === routing.smsDomain
    ? BigInt(match[1])
    : undefined;
}
