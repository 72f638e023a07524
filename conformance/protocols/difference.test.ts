import t from 'tap';
import { seeded } from '../fixtures/random.js';
import { describeDifference } from './difference.js';
import { compose } from './message.js';

const { bytes } = compose({ run: 'run-1', id: '7', shape: 'text' }, seeded(1));

t.test('equal messages have no difference, whatever a relay added in front', async (t) => {
  t.equal(describeDifference(bytes, bytes), undefined);
  t.equal(describeDifference(bytes, Buffer.concat([Buffer.from('Received: here\r\n'), bytes])), undefined);
});

t.test(
  'the first difference is given by byte, line and column, with the bytes of both versions',
  async (t) => {
    const changed = Buffer.from(bytes);
    const at = bytes.indexOf('Subject: text') + 9;
    changed.set([0xff], at);
    const line = bytes.subarray(0, at).toString('latin1').split('\n').length;
    t.equal(
      describeDifference(bytes, changed),
      `first difference at byte ${at} (line ${line}, column 10): submitted "text\\r\\nMIME-Version: 1.0\\r", delivered "\\xffext\\r\\nMIME-Version: 1.0\\r"`,
    );
  },
);

t.test('a message that ends too soon or too late differs there', async (t) => {
  t.match(describeDifference(bytes, bytes.subarray(0, 50)), /at byte 50 .*delivered nothing more$/);
  t.match(describeDifference(bytes, Buffer.concat([bytes, Buffer.from('more')])), `at byte ${bytes.length} `);
  t.match(
    describeDifference(bytes, Buffer.from('other')),
    /^first difference at byte 0 \(line 1, column 1\)/,
  );
});
