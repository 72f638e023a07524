import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { generate, type IConnackPacket, type IPublishPacket, type Packet, parser } from 'mqtt-packet';
import type { Address } from '../address.js';
import { guardInput } from '../client/input-guard.js';
import { withTimeout } from '../client/timeout.js';

/** Topic of the messages. */
export const TOPIC = 'plugpull/messages';
/** Topic of the empty messages by which `mqttReady` asks whether the session of the receiver exists. */
export const READY_TOPIC = 'plugpull/ready';
/** The subscription of the receiver's session. */
const FILTER = 'plugpull/#';
/** Client id of the receiver's session. The server keeps the session while the receiver is not connected. */
const RECEIVER_ID = 'plugpull-receiver';
/** Longest time that a server may keep a session, in seconds: it never ends. */
const NEVER_EXPIRES = 0xffff_ffff;
/** Greatest number of deliveries that the server sends before it waits for acknowledgements. */
const RECEIVE_MAXIMUM = 8;
const QOS_1 = 1;
/** Reason codes from here on are errors (MQTT 5, section 2.4). */
const FIRST_ERROR_CODE = 0x80;
/** Packet ids are 1 to this number. */
const MAX_PACKET_ID = 0xffff;
const VERSION = { protocolVersion: 5 };

interface Waiting {
  resolve(packet: Packet): void;
  reject(error: Error): void;
}

/** Gets a delivery and the connection on which it is to be acknowledged. */
type OnPublish = (packet: IPublishPacket, connection: MqttConnection) => void;

/** How a connection opens its session. */
type Session = 'temporary' | 'receiver';

/**
 * One connection with MQTT 5. The packets are made and parsed by mqtt-packet. It uses no client library: client
 * libraries acknowledge one delivery after the other, store what was not answered, and send it again after a
 * reconnect. Each answer must belong to exactly one submit of the kit.
 */
export class MqttConnection {
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #waiting = new Map<string, Waiting>();
  #lastPacketId = 0;
  #broken: Error | undefined;
  readonly #onPublish: OnPublish;
  /** Resolves when the connection is broken or closed. */
  readonly ended: Promise<void>;

  private constructor(socket: Socket, timeoutMs: number, onPublish: OnPublish) {
    this.#socket = socket;
    guardInput(socket);
    this.#timeoutMs = timeoutMs;
    this.#onPublish = onPublish;
    this.ended = new Promise((resolve) => {
      socket.once('close', () => resolve());
    });
    const packets = parser(VERSION);
    packets.on('packet', (packet) => this.#receive(packet));
    packets.on('error', (error: unknown) => this.break(asError(error)));
    socket.setNoDelay(true);
    socket.on('data', (chunk) => packets.parse(chunk));
    socket.on('error', (error) => this.break(error));
    socket.on('close', () => this.break(new Error('the connection broke')));
  }

  /**
   * Opens a connection to an address. `receiver` continues the receiver's session or makes it, and
   * ends another connection of it; `temporary` makes a session that ends with the connection.
   * @param timeoutMs limit for the connection and for each answer.
   * @param onPublish is called for each delivery, the first time before the connection is returned.
   * @throws Error when the target does not accept the connection in time.
   */
  static async open(
    { host, port }: Address,
    timeoutMs: number,
    session: Session,
    onPublish: OnPublish = () => {},
  ): Promise<MqttConnection> {
    const socket = connect(port, host);
    try {
      await withTimeout(once(socket, 'connect'), timeoutMs);
      const connection = new MqttConnection(socket, timeoutMs, onPublish);
      await connection.#enter(session);
      return connection;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  get broken(): boolean {
    return this.#broken !== undefined;
  }

  /**
   * Publishes with QoS 1.
   * @returns the reason code of the PUBACK.
   * @throws Error when the connection breaks or nothing is answered in time; a timeout breaks the connection.
   */
  async publish(topic: string, payload: Buffer): Promise<number> {
    const messageId = this.#nextPacketId();
    const packet = {
      cmd: 'publish',
      topic,
      payload,
      messageId,
      qos: QOS_1,
      dup: false,
      retain: false,
    } as const;
    const answer = await this.#request(packet, `puback ${messageId}`);
    return reasonOf(answer);
  }

  /**
   * Subscribes the session to the topics of the kit. A session that exists keeps its messages.
   * @throws Error when the server refuses.
   */
  async subscribe(): Promise<void> {
    const messageId = this.#nextPacketId();
    const subscriptions = [{ topic: FILTER, qos: QOS_1 } as const];
    const answer = await this.#request({ cmd: 'subscribe', messageId, subscriptions }, `suback ${messageId}`);
    const granted = answer.cmd === 'suback' ? answer.granted : [];
    if (granted[0] !== QOS_1) throw new Error(`SUBACK ${JSON.stringify(granted)}: expected QoS 1`);
  }

  /**
   * Acknowledges a delivery. The protocol has no answer to this.
   * @returns false if the connection is broken: nothing was sent.
   */
  acknowledge({ messageId = 0 }: IPublishPacket): boolean {
    if (this.broken) return false;
    this.#send({ cmd: 'puback', messageId, reasonCode: 0 });
    return true;
  }

  /**
   * Makes a round trip. The server handles the packets of a connection in order, so its answer proves that it has
   * handled all acknowledgements before.
   */
  async roundTrip(): Promise<void> {
    await this.#request({ cmd: 'pingreq' }, 'pingresp');
  }

  /** Ends the connection with a DISCONNECT. The server keeps the receiver's session. */
  close(): void {
    if (this.#broken === undefined) {
      this.#send({ cmd: 'disconnect', reasonCode: 0 });
      this.#socket.end();
    }
    this.break(new Error('closed'));
  }

  /** Ends the connection. Every request under way fails with `error`. */
  break(error: Error): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    // What `close` has written is still sent.
    if (this.#socket.writableEnded) this.#socket.destroySoon();
    else this.#socket.destroy();
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  async #enter(session: Session): Promise<void> {
    const lasting = session === 'receiver';
    const answer = await this.#request(
      {
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 5,
        clientId: lasting ? RECEIVER_ID : `plugpull-${randomUUID()}`,
        clean: !lasting,
        keepalive: 0,
        properties: {
          sessionExpiryInterval: lasting ? NEVER_EXPIRES : 0,
          receiveMaximum: RECEIVE_MAXIMUM,
        },
      },
      'connack',
    );
    // The key of the request lets only a CONNACK through.
    const { reasonCode } = answer as IConnackPacket;
    if (reasonCode !== 0) throw new Error(`CONNACK ${hex(reasonCode ?? 0)}`);
  }

  #nextPacketId(): number {
    do this.#lastPacketId = (this.#lastPacketId % MAX_PACKET_ID) + 1;
    while (this.#waiting.has(`puback ${this.#lastPacketId}`));
    return this.#lastPacketId;
  }

  async #request(packet: Packet, answerKey: string): Promise<Packet> {
    if (this.#broken) throw this.#broken;
    const answer = new Promise<Packet>((resolve, reject) => {
      this.#waiting.set(answerKey, { resolve, reject });
    });
    this.#send(packet);
    try {
      return await withTimeout(answer, this.#timeoutMs);
    } catch (error) {
      // A late answer must not count: the submit is indefinite by now.
      this.break(asError(error));
      throw error;
    }
  }

  #send(packet: Packet): void {
    if (this.#broken === undefined) this.#socket.write(generate(packet, VERSION));
  }

  #receive(packet: Packet): void {
    if (this.#broken !== undefined) return;
    if (packet.cmd === 'publish') {
      this.#onPublish(packet, this);
      return;
    }
    if (packet.cmd === 'disconnect') {
      this.break(new Error(`the server sent DISCONNECT ${hex(packet.reasonCode ?? 0)}`));
      return;
    }
    const key = packet.messageId === undefined ? packet.cmd : `${packet.cmd} ${packet.messageId}`;
    const waiting = this.#waiting.get(key);
    this.#waiting.delete(key);
    waiting?.resolve(packet);
  }
}

/** Returns whether a reason code says that the server did not do what was asked. */
export function isError(reasonCode: number): boolean {
  return reasonCode >= FIRST_ERROR_CODE;
}

/** Returns a reason code as the standard writes it, for example `0x97`. */
export function hex(reasonCode: number): string {
  return `0x${reasonCode.toString(16).padStart(2, '0')}`;
}

function reasonOf(packet: Packet): number {
  return 'reasonCode' in packet ? (packet.reasonCode ?? 0) : 0;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
