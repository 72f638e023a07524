import type { IPublishPacket } from 'mqtt-packet';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Delivery, type OpenPushSource, PushReceiver } from '../client/push-receiver.js';
import { connectProducer, type Session } from '../client/session.js';
import { answerTimeoutMs } from '../client/timeout.js';
import type { Answer, Protocol } from '../protocol.js';
import { hex, isError, MqttConnection, READY_TOPIC, TOPIC } from './connection.js';

/** MQTT 5 with QoS 1 and a session that outlives the receiver's connection. */
export const mqtt: Protocol = {
  name: 'mqtt',
  connect: (address, options) => connectProducer(openSession, address, options?.timeoutMs),
  ready: mqttReady,
  receive: async (addresses, options) => new PushReceiver(openersFor(addresses, 1, openSource), options),
};

/** Reason code of a PUBACK: the server took the message and has no session to keep it for. */
const NO_SUBSCRIBERS = 0x10;

/** Returns what the reason code of a PUBACK means for the message. */
export function answerOf(reasonCode: number): Answer {
  const detail = `PUBACK ${hex(reasonCode)}`;
  if (reasonCode === NO_SUBSCRIBERS) return { outcome: 'rejected', detail: `${detail}: no subscribers` };
  if (isError(reasonCode)) return { outcome: 'rejected', detail };
  if (reasonCode === 0) return { outcome: 'confirmed', detail };
  return { outcome: 'indefinite', detail: `${detail}: not in the standard` };
}

async function openSession(address: Address, timeoutMs: number): Promise<Session> {
  const connection = await MqttConnection.open(address, timeoutMs, 'temporary');
  return {
    async put({ bytes }) {
      try {
        return answerOf(await connection.publish(TOPIC, bytes));
      } catch (error) {
        return { outcome: 'indefinite', detail: messageOf(error) };
      }
    },
    usable: () => !connection.broken,
    close: async () => connection.close(),
  };
}

/**
 * Tries once whether the server accepts connections and has the receiver's session. It makes the session if
 * there is none: a server keeps messages only for sessions that exist. Never rejects.
 */
async function mqttReady(address: Address, timeoutMs: number): Promise<boolean> {
  let client: MqttConnection | undefined;
  let receiver: MqttConnection | undefined;
  try {
    client = await MqttConnection.open(address, timeoutMs, 'temporary');
    const reasonCode = await client.publish(READY_TOPIC, Buffer.alloc(0));
    if (reasonCode !== NO_SUBSCRIBERS) return reasonCode === 0;
    // Deliveries to this connection are not acknowledged: the server delivers them again to the next one.
    receiver = await MqttConnection.open(address, timeoutMs, 'receiver');
    await receiver.subscribe();
    return true;
  } catch {
    return false;
  } finally {
    client?.close();
    receiver?.close();
  }
}

/** Opens the only connection of the receiver: a session has one connection at a time. */
function openSource(address: Address): OpenPushSource {
  return async (onDelivery) => {
    const timeoutMs = answerTimeoutMs(address);
    const connection = await MqttConnection.open(address, timeoutMs, 'receiver', (packet, from) => {
      if (packet.topic === READY_TOPIC) from.acknowledge(packet);
      else onDelivery(deliveryOf(packet, from));
    });
    const close = async () => connection.close();
    try {
      await connection.subscribe();
    } catch (error) {
      await close();
      throw error;
    }
    return { ended: connection.ended, roundTrip: () => connection.roundTrip(), close };
  };
}

function deliveryOf(packet: IPublishPacket, connection: MqttConnection): Delivery {
  return {
    body: Buffer.from(packet.payload),
    accept: () => connection.acknowledge(packet),
    refuse() {
      // The protocol has no refusal. The server delivers again what was not acknowledged when the session gets
      // its next connection. First let the server handle the acknowledgements of other deliveries.
      connection.roundTrip().then(
        () => connection.close(),
        () => {},
      );
      return 'the connection is closed without an acknowledgement';
    },
  };
}
