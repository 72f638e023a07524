import type { Protocol } from '../protocol.js';
import { connectSmtp } from './producer.js';
import { SmtpSink } from './sink.js';

/** SMTP gateways: a `250` after the data confirms a submit, and the target relays the message to the sink. */
export const smtp: Protocol = {
  name: 'smtp',
  // The sink does not offer BINARYMIME, so a relay could not pass on NUL bytes (RFC 3030, section 3).
  content: '8bit',
  connect: (port, options) => connectSmtp(port, options?.timeoutMs),
  async ready(port, timeoutMs) {
    try {
      const producer = await connectSmtp(port, timeoutMs);
      await producer.close();
      return true;
    } catch {
      return false;
    }
  },
  receive: (_ports, options) => SmtpSink.start(options),
};
