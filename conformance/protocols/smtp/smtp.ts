import type { Protocol } from '../protocol.js';
import { connectSmtp } from './producer.js';
import { SmtpSink } from './sink.js';

/** SMTP gateways: a `250` after the data confirms a submit, and the target relays the message to the sink. */
export const smtp: Protocol = {
  name: 'smtp',
  // The sink does not offer BINARYMIME, so a relay could not pass on NUL bytes (RFC 3030, section 3).
  content: '8bit',
  connect: (address, options) => connectSmtp(address, options?.timeoutMs),
  async ready(address, timeoutMs) {
    try {
      const producer = await connectSmtp(address, timeoutMs);
      await producer.close();
      return true;
    } catch {
      return false;
    }
  },
  receive: (_addresses, options) => SmtpSink.start(options),
};
