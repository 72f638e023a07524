import { once } from 'node:events';
import t from 'tap';
import { HistoryBuilder } from '../fixtures/history-builder.js';
import { PullReceiver } from '../protocols/client/pull-receiver.js';
import { compose } from '../protocols/message.js';
import { undeliveredMessages } from './undelivered.js';

const message = compose({ run: 'r', id: '1', shape: 'tiny' }, { int: () => 0 });

/** Returns what a receiver reports as the detail of a refusal. @param giveBack how it returns the message. */
async function refusalDetail(giveBack: () => Promise<string>): Promise<string> {
  let given = false;
  const source = {
    async next() {
      if (given) return undefined;
      given = true;
      return { body: message.bytes, consume: async () => undefined, giveBack };
    },
    close: () => {},
  };
  const refusal = new EventTarget();
  const refused = once(refusal, 'refused');
  let text = '';
  const receiver = new PullReceiver([{ open: async () => source }], {
    run: 'r',
    replyFor: () => ({ answer: 'later', delayMs: 0 }),
    receipts: {
      delivered: () => 1,
      consumed: () => {},
      settled: () => {},
      refused(_sequence, _id, _permanent, detail) {
        text = detail;
        refusal.dispatchEvent(new Event('refused'));
      },
    },
  });
  await refused;
  await receiver.close();
  return text;
}

/** Returns the fate of a message whose last delivery was refused with this detail, after a short shown wait. */
function fateAfter(detail: string): string | undefined {
  const shown = { allowedMs: 6000, allowedBy: 'shown' } as const;
  const { events } = new HistoryBuilder()
    .startOver('nats', 'kill')
    .submit('1')
    .deliver('1')
    .refuse(false, detail)
    .drain(true, shown);
  return undeliveredMessages(events)[0]?.fate;
}

t.test('the checker tells a break from a refusal by what a pull receiver reports', async (t) => {
  const broken = await refusalDetail(() => Promise.reject(new Error('gone')));
  t.equal(fateAfter(broken), 'undecided', broken);
  const chosen = await refusalDetail(async () => 'given back at once');
  t.equal(fateAfter(chosen), 'late', chosen);
});
