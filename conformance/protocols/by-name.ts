import { http } from './http/http.js';
import type { Protocol } from './protocol.js';
import { smtp } from './smtp/smtp.js';

/** The protocol of a target. */
export function protocolOf(name: Protocol['name']): Protocol {
  switch (name) {
    case 'smtp':
      return smtp;
    case 'http':
      return http;
  }
}
