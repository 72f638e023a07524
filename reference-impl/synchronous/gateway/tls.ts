import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContext } from 'node:tls';
import { QueueError } from '../../common/platform/errors.js';
import type { QueueSettings } from '../settings/settings.js';

/**
 * Reads the certificate and the key of the SMTP server.
 * @returns undefined when the settings name none; STARTTLS is not offered then
 * @throws QueueError `bad-setting` when a file cannot be read or is wrong, or when the two do not belong together
 */
export function inboundTls({ tlsCert, tlsKey }: QueueSettings['smtp']): SecureContext | undefined {
  if (tlsCert === null || tlsKey === null) return undefined;
  const cert = readPem('smtp.tlsCert', tlsCert, 'CERTIFICATE');
  const key = readPem('smtp.tlsKey', tlsKey, 'PRIVATE KEY');
  // Check one after the other: the messages of OpenSSL do not say which of them is wrong.
  contextOf('smtp.tlsCert', tlsCert, 'a certificate', { cert });
  contextOf('smtp.tlsKey', tlsKey, 'a private key without a passphrase', { key });
  return contextOf('smtp.tlsKey', tlsKey, `the key of the certificate ${tlsCert}`, { cert, key });
}

/** How sessions with next hops use STARTTLS. */
export interface OutboundTls {
  /**
   * `off`: never. `may`: if the hop offers it, with any certificate. `require`: always, with a certificate for the
   * name of the hop that a trusted authority has signed.
   */
  mode: 'off' | 'may' | 'require';
  /** The trusted authorities; undefined: those of Node. */
  secureContext: SecureContext | undefined;
}

/**
 * Reads the trusted authorities for outbound mail.
 * @throws QueueError `bad-setting` when the file cannot be read or has no certificate
 */
export function outboundTls({ tls, tlsCa }: QueueSettings['delivery']): OutboundTls {
  if (tlsCa === null) return { mode: tls, secureContext: undefined };
  const ca = readPem('delivery.tlsCa', tlsCa, 'CERTIFICATE');
  return {
    mode: tls,
    secureContext: contextOf('delivery.tlsCa', tlsCa, 'certificates of authorities', { ca }),
  };
}

function readPem(setting: string, path: string, label: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unreadable';
    throw new QueueError(
      'bad-setting',
      `${setting}: ${path}: cannot be read (${code}), expected a PEM file`,
      {
        cause,
      },
    );
  }
  if (new RegExp(`^-----BEGIN [A-Z ]*${label}-----`, 'm').test(text)) return text;
  throw new QueueError('bad-setting', `${setting}: ${path}: has no ${label}, expected a PEM file with one`);
}

function contextOf(
  setting: string,
  path: string,
  expected: string,
  parts: { cert?: string; key?: string; ca?: string },
): SecureContext {
  try {
    return createSecureContext(parts);
  } catch (cause) {
    const why = (cause as Error).message.replace(/\s+/g, ' ');
    throw new QueueError('bad-setting', `${setting}: ${path}: found ${why}, expected ${expected}`, { cause });
  }
}
