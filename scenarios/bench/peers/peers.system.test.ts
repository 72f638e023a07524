import t from 'tap';
import { CountingSink } from '../smtp-sink.js';
import { compare, isDifferent } from './compare.js';
import { makeWorkplace, startPostfix, startReference, whyNoPostfix } from './servers.js';

const why = whyNoPostfix();

t.test(
  'each difference between the gateway and Postfix has a note',
  { skip: why === undefined ? false : `not measured: ${why}` },
  async (t) => {
    const workplace = await makeWorkplace();
    t.teardown(workplace.remove);
    const sink = new CountingSink();
    t.teardown(() => sink.close());
    const sinkPort = await sink.listen();
    const gateway = await startReference(workplace, sinkPort);
    t.teardown(gateway.stop);
    const postfix = await startPostfix(workplace, sinkPort);
    t.teardown(postfix.stop);
    for (const { sequence, answers } of await compare([gateway, postfix]))
      t.ok(!isDifferent(answers) || sequence.note !== undefined, sequence.name);
  },
);
