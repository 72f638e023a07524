import fc from 'fast-check';
import t from 'tap';
import { type Message, MessageList } from './message-list.js';

const message = (number: number): Message => ({
  id: `${number}`,
  body: Buffer.alloc(0),
  number,
  next: undefined,
  previous: undefined,
});

const backwards = (list: MessageList): number[] => {
  const numbers = [];
  for (let one = list.tail; one !== undefined; one = one.previous) numbers.push(one.number);
  return numbers.reverse();
};

t.test('a list does what a sorted array does, in both directions, whatever is done to it', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('splice' as const), count: fc.nat(4) }),
    fc.record({ kind: fc.constant('remove' as const), at: fc.nat() }),
    fc.record({ kind: fc.constant('putBack' as const), at: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const list = new MessageList();
      let model: Message[] = [];
      const out: Message[] = [];
      let number = 0;
      for (const one of steps) {
        if (one.kind === 'splice') {
          const staged = new MessageList();
          for (let at = 0; at < one.count; at += 1) {
            number += 1;
            const added = message(number);
            staged.push(added);
            model.push(added);
          }
          list.splice(staged);
          if (staged.length !== 0 || staged.head !== undefined) return false;
        } else if (one.kind === 'remove' && model.length > 0) {
          const removed = model[one.at % model.length] as Message;
          model = model.filter((kept) => kept !== removed);
          list.remove(removed);
          out.push(removed);
        } else if (one.kind === 'putBack' && out.length > 0) {
          const [back] = out.splice(one.at % out.length, 1) as [Message];
          list.putBack(back);
          model = [...model, back].sort((a, b) => a.number - b.number);
        }
        const numbers = model.map((kept) => kept.number).join();
        if ([...list].map((kept) => kept.number).join() !== numbers) return false;
        if (backwards(list).join() !== numbers || list.length !== model.length) return false;
      }
      return true;
    }),
    { numRuns: 500 },
  );
});
