import fc from 'fast-check';
import t from 'tap';
import {
  ANSWER_BYTES,
  type Answer,
  decodeAnswers,
  decodeConfirmAcks,
  decodeRequests,
  encodeAnswer,
  encodeConfirmAck,
  encodeRequest,
  REQUEST_BYTES,
} from './tokens.js';

const u32 = fc.nat(2 ** 32 - 1);
const plain = { noNullPrototype: true };
const wide = fc.maxSafeNat();
const request = fc.record(
  { slot: fc.nat(999), incarnation: u32, id: u32, offset: wide, length: wide },
  plain,
);
const answer = fc.record(
  {
    kind: fc.constantFrom<Answer['kind']>('receipt', 'confirm'),
    helper: u32,
    incarnation: u32,
    id: u32,
    batch: u32,
    errno: u32,
  },
  plain,
);
const confconf = fc.record({ slot: u32, incarnation: u32, id: u32, batch: u32, helper: u32 }, plain);

t.test('decoding returns the tokens that were encoded, several in one read', async (t) => {
  fc.assert(
    fc.property(fc.array(request), fc.array(confconf), (requests, confconfs) => {
      t.strictSame(decodeRequests(Buffer.concat(requests.map(encodeRequest))), requests);
      t.strictSame(decodeConfirmAcks(Buffer.concat(confconfs.map(encodeConfirmAck))), confconfs);
    }),
  );
  fc.assert(
    fc.property(fc.array(answer), (answers) => {
      for (const kind of ['receipt', 'confirm'] as const) {
        const mine = answers.filter((each) => each.kind === kind);
        t.strictSame(decodeAnswers(Buffer.concat(mine.map(encodeAnswer)), kind), mine);
      }
    }),
  );
});

t.test(
  'decoding stops at bytes that are not a token and at a token of another kind, and drops the rest of the read',
  async (t) => {
    const one = { slot: 1, incarnation: 2, id: 3, offset: 4096, length: 256 };
    const token = encodeRequest(one);
    t.same(decodeRequests(Buffer.concat([token, Buffer.alloc(REQUEST_BYTES, 0xff), token])), [one]);
    t.same(decodeRequests(token.subarray(0, REQUEST_BYTES - 1)), []);
    const receipt = encodeAnswer({ kind: 'receipt', helper: 1, incarnation: 1, id: 1, batch: 1, errno: 0 });
    t.same(decodeAnswers(receipt, 'confirm'), [], 'a receipt is not a confirmation');
    t.same(decodeConfirmAcks(receipt), []);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (noise) => {
        const bytes = Buffer.from(noise);
        const found = [decodeRequests(bytes), decodeAnswers(bytes, 'confirm'), decodeConfirmAcks(bytes)];
        return found.every((tokens) => tokens.length <= noise.length / ANSWER_BYTES);
      }),
    );
  },
);
