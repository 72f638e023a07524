/** The two kinds of message that a record can hold [0019, 0027]. */
export type MessageType = 'smtp' | 'sms';

/** An SMTP message and its envelope [0027]. */
export interface SmtpBody {
  type: 'smtp';
  /** Reverse path as it came, without angle brackets; empty for the null sender. */
  sender: string;
  recipients: string[];
  /** The message as it came after DATA, dots unstuffed, without the final `.`. */
  data: Buffer;
  /** Delivery instruction [0027]: the destination host, `host:port`; absent when it is to be looked up. */
  destination?: string;
}

/** A short message; MSISDNs are whole numbers of up to 15 digits (E.164) [0027]. */
export interface SmsBody {
  type: 'sms';
  sender: bigint;
  recipients: bigint[];
  data: Buffer;
  /** Delivery instruction [0027]: the SMSC's location, `host:port`. */
  destination?: string;
}

export type Body = SmtpBody | SmsBody;
