/** The two kinds of message that a record can hold (patent [0019, 0027]). */
export type MessageType = 'smtp' | 'sms';

/** An SMTP message and its envelope (patent [0027]). */
export interface SmtpBody {
  type: 'smtp';
  /** Reverse path as it was received, without angle brackets. Empty for the null sender. */
  sender: string;
  recipients: string[];
  /** The message as it was received after DATA, with dots unstuffed and without the final `.`. */
  data: Buffer;
  /**
   * Delivery instruction (patent [0027]): the destination host as `host:port`. Absent when the gateway has to
   * look it up.
   */
  destination?: string;
  /** JSON text that the dead-letter queue adds to a message (queue/dead-note.ts). */
  note?: string;
}

/** A short message and its envelope. MSISDNs are whole numbers of up to 15 digits (E.164; patent [0027]). */
export interface SmsBody {
  type: 'sms';
  sender: bigint;
  recipients: bigint[];
  data: Buffer;
  /** Delivery instruction (patent [0027]): the address of the SMSC as `host:port`. */
  destination?: string;
  /** JSON text that the dead-letter queue adds to a message (queue/dead-note.ts). */
  note?: string;
}

/** The content of a record: a message of either type. */
export type Body = SmtpBody | SmsBody;
