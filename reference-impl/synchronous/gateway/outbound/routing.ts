import type { Body } from '../../record/body.js';

/** The destinations of the mail of a worker. */
export interface Routing {
  /** Destinations as `host:port`, by the lower-case domain of the recipient. */
  routes: Readonly<Record<string, string>>;
  /** Destination for every other domain, as `host:port`. */
  nextHop?: string | undefined;
  /** Lower-case domain in which an address of digits is an MSISDN. */
  smsDomain: string;
}

/** Sender and recipients of a message, without angle brackets. */
export interface Envelope {
  sender: string;
  recipients: readonly string[];
}

/** Maximum number of recipients of an SMS record, which stores the number in one byte (patent [0027]). */
const MAX_SMS_RECIPIENTS = 255;
/**
 * Matches an address whose local part is an MSISDN: up to 15 digits (E.164) without a leading zero. A number
 * would lose a leading zero, so an address with one stays text.
 */
const MSISDN = /^([1-9]\d{0,14})@(.+)$/;

/** Returns whether there is a destination for recipients in this lower-case domain. */
export function hasRoute(routing: Routing, domain: string): boolean {
  return routing.nextHop !== undefined || Object.hasOwn(routing.routes, domain);
}

/**
 * Builds one record body per destination and type (patent [0027, 0036]). If a route names the destination, the
 * record contains it as its delivery instruction. Otherwise the next hop is looked up at delivery.
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
      // Move a full SMS record to another key, so that the next record gets its key.
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

/** Returns the envelope for the delivery of a record. MSISDNs become addresses in the SMS domain again. */
export function envelopeOf(routing: Routing, body: Body): Envelope {
  if (body.type === 'smtp') return body;
  const address = (msisdn: bigint) => `${msisdn}@${routing.smsDomain}`;
  return { sender: address(body.sender), recipients: body.recipients.map(address) };
}

/** Returns a copy of the body with only the recipients at the given positions. */
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
