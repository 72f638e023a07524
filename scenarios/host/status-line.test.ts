import t from 'tap';
import { StatusLine, type StatusOutput } from './status-line.js';

const TICK_MS = 500;
/** Longest silence that a user should see. */
const LIMIT_MS = 5000;

/** An output with a clock that the test moves. Keeps what was printed, with the time. */
class FakeOutput implements StatusOutput {
  nowMs = 0;
  readonly lines: { atMs: number; text: string }[] = [];
  readonly rewritten: string[] = [];
  #lastMs = 0;

  constructor(readonly isTerminal: boolean) {}

  silentMs(): number {
    return this.nowMs - this.#lastMs;
  }

  print(text: string): void {
    this.lines.push({ atMs: this.nowMs, text });
    this.#lastMs = this.nowMs;
  }

  rewrite(text: string): void {
    this.rewritten.push(text);
  }
}

t.test('between two lines of a run that prints nothing itself lie less than 5 s', async (t) => {
  const output = new FakeOutput(false);
  const status = new StatusLine(() => `state at ${output.nowMs}`, output);
  for (; output.nowMs <= 60_000; output.nowMs += TICK_MS) {
    // The run prints something itself at times that have nothing to do with the ticks.
    if (output.nowMs === 7000 || output.nowMs === 22_500) output.print('a line of the run');
    status.tick();
  }
  const times = [0, ...output.lines.map(({ atMs }) => atMs), 60_000];
  const gaps = times.slice(1).map((atMs, index) => atMs - (times[index] ?? 0));
  t.ok(Math.max(...gaps) < LIMIT_MS, `the longest silence is ${Math.max(...gaps)} ms`);
  t.ok(output.lines.length > 12, `${output.lines.length} lines`);
  t.same(output.rewritten, [], 'nothing is rewritten off a terminal');
});

t.test('a run that prints enough itself gets no further line', async (t) => {
  const output = new FakeOutput(false);
  const status = new StatusLine(() => 'state', output);
  for (; output.nowMs <= 20_000; output.nowMs += TICK_MS) {
    if (output.nowMs % 2000 === 0) output.print('a line of the run');
    status.tick();
  }
  t.ok(output.lines.every(({ text }) => text === 'a line of the run'));
});

t.test('on a terminal the state is rewritten in place, and removed at the end', async (t) => {
  const output = new FakeOutput(true);
  const status = new StatusLine(() => 'first', output);
  status.tick();
  status.watch(() => 'second');
  status.tick();
  t.equal(await status.during(Promise.resolve('result')), 'result');
  t.same(output.rewritten, ['first', 'second', '']);
  t.same(output.lines, []);
});
