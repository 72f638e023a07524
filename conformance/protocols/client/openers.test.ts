import t from 'tap';
import { seeded } from '../../fixtures/random.js';
import { ReceiptList } from '../../fixtures/receipts.js';
import { localAddress } from '../address.js';
import { compose } from '../message.js';
import { openersFor } from './openers.js';
import { type LeaseSource, PullReceiver } from './pull-receiver.js';
import { type OpenPushSource, PushReceiver } from './push-receiver.js';

const RUN = 'run-1';
const { bytes } = compose({ run: RUN, id: '1', shape: 'text' }, seeded(1));
const ADDRESSES = [localAddress(1), { ...localAddress(2), node: 'b' }];

/** Opens a source that has one message. */
async function pullSource(): Promise<LeaseSource> {
  let isTaken = false;
  return {
    async next() {
      await new Promise((resolve) => setTimeout(resolve, 1));
      if (isTaken) return undefined;
      isTaken = true;
      return { body: bytes, consume: async () => undefined, giveBack: async () => '' };
    },
    close() {},
  };
}

/** Opens a source that pushes one message. */
const pushSource: OpenPushSource = async (onDelivery) => {
  onDelivery({ body: bytes, accept: () => true, refuse: () => '' });
  return { ended: new Promise(() => {}), roundTrip: async () => {}, close: async () => {} };
};

const RECEIVERS = {
  'asks for messages': (receipts: ReceiptList) =>
    new PullReceiver(
      openersFor(ADDRESSES, 1, () => pullSource),
      { run: RUN, receipts },
    ),
  'gets messages': (receipts: ReceiptList) =>
    new PushReceiver(
      openersFor(ADDRESSES, 1, () => pushSource),
      { run: RUN, receipts },
    ),
};

for (const [what, make] of Object.entries(RECEIVERS)) {
  t.test(`a receiver that ${what} reports the node of a delivery, and none without nodes`, async (t) => {
    const receipts = new ReceiptList();
    const receiver = make(receipts);
    await receipts.waitFor('consumed', 2);
    await receiver.close();
    const delivered = receipts.ofKind('delivered');
    t.same(delivered.map((one) => one.node ?? 'none').sort(), ['b', 'none']);
    t.equal(delivered.filter((one) => 'node' in one).length, 1);
  });
}
