import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { hostWith, installed, killed, opened, put, storedIds, type Test } from '../fixtures/queue.js';
import type { Host } from '../host.js';
import { pathsOf } from '../settings.js';
import type { CheckpointedQueue } from './checkpointed-queue.js';
import { verifyQueue } from './verify.js';

const NAMES = ['q0', 'q1', 'a', 'b'];
const CONTROL_COPY_BYTES = 64 * 1024;

const step = fc.record({
  kind: fc.constantFrom(
    ...(['put', 'put', 'put', 'large', 'consume', 'consume', 'move', 'create', 'delete', 'change'] as const),
    ...(['checkpoint', 'checkpoint', 'failed', 'kill', 'lost', 'damaged'] as const),
  ),
  at: fc.nat(3),
  to: fc.nat(3),
});

/** The writer of a slot dies in the middle of a message, then the control record is lost. The log still has the message. */
const CUT_SLOT = (['large', 'failed', 'lost'] as const).map((kind) => ({ kind, at: 0, to: 0 }));

/** A queue under test, and what it must hold. */
class Run {
  readonly #t: Test;
  readonly #host: Host;
  readonly #model = new Map<string, string[]>([
    ['q0', []],
    ['q1', []],
  ]);
  #directory: string;
  #queue: CheckpointedQueue;
  #isDying = false;
  #number = 0;

  private constructor(t: Test, directory: string, host: Host, queue: CheckpointedQueue) {
    this.#t = t;
    this.#directory = directory;
    this.#host = host;
    this.#queue = queue;
  }

  static async start(t: Test): Promise<Run> {
    const directory = await installed(t, { segmentBytes: 8192, segments: 8 });
    const inner = hostWith();
    const host: Host = {
      ...inner,
      startWriter: (fd) => {
        const writer = inner.startWriter(fd);
        return {
          write: (bytes) => writer.write(run.#isDying ? bytes.subarray(0, bytes.length / 2) : bytes),
          end: async () => (await writer.end()) && !run.#isDying,
        };
      },
    };
    const run: Run = new Run(t, directory, host, await opened(t, directory));
    await run.#restart(() => undefined);
    return run;
  }

  async #restart(change: (directory: string) => void): Promise<void> {
    this.#directory = killed(this.#t, this.#directory);
    change(this.#directory);
    await this.#queue.close();
    this.#queue = await opened(this.#t, this.#directory, { host: this.#host });
  }

  async step({ kind, at, to }: { kind: string; at: number; to: number }): Promise<void> {
    const name = NAMES[at] ?? '';
    const target = NAMES[to] ?? '';
    const ids = this.#model.get(name);
    if (kind === 'put' || kind === 'large') {
      this.#number += 1;
      const id = `m-${this.#number}`;
      const outcome = await put(this.#queue, id, kind === 'put' ? 20 : 5000, name);
      if (outcome === 'committed') ids?.push(id);
    } else if (kind === 'consume' || kind === 'move') {
      const transaction = this.#queue.begin();
      const taken = transaction.take(name);
      this.#number += 1;
      if (kind === 'move') transaction.put(`m-${this.#number}`, Buffer.alloc(20), target);
      const { outcome } = await transaction.commit();
      if (outcome === 'rejected') return;
      if (taken !== undefined && ids?.shift() !== taken.id) throw new Error(`took ${taken.id}`);
      if (kind === 'move') this.#model.get(target)?.push(`m-${this.#number}`);
    } else if (kind === 'create') {
      const outcome = await this.#queue.createQueue({ name, order: 'strict' });
      if (outcome === 'created') this.#model.set(name, []);
    } else if (kind === 'delete') {
      if ((await this.#queue.deleteQueue(name)) === 'deleted') this.#model.delete(name);
    } else if (kind === 'change')
      await this.#queue.changeQueue({ name, order: at % 2 ? 'strict' : 'relaxed' });
    else if (kind === 'checkpoint' || kind === 'failed') {
      this.#isDying = kind === 'failed';
      await this.#queue.checkpoint();
      this.#isDying = false;
    } else if (kind === 'kill') await this.#restart(() => undefined);
    else if (kind === 'lost') await this.#restart((directory) => rmSync(pathsOf(directory).control));
    else await this.#restart((directory) => damageCopy(pathsOf(directory).control, to % 2));
  }

  /** @returns undefined, or what is wrong */
  check(): string | undefined {
    const copy = killed(this.#t, this.#directory);
    const expected = Object.fromEntries([...this.#model].filter(([, ids]) => ids.length > 0).sort());
    const found = JSON.stringify(storedIds(copy));
    if (found !== JSON.stringify(expected)) return `found ${found}, expected ${JSON.stringify(expected)}`;
    const names = this.#queue.queues().map(({ definition }) => definition.name);
    if (names.sort().join() !== [...this.#model.keys()].sort().join()) return `queues: ${names.join()}`;
    const { problems } = verifyQueue(copy, linux);
    return problems.length === 0 ? undefined : problems.join();
  }
}

function damageCopy(path: string, copy: number): void {
  const bytes = readFileSync(path);
  const at = copy * CONTROL_COPY_BYTES + 20;
  // There is one copy only after the loss of both.
  if (bytes.length > at + 10) bytes.fill(0xff, at, at + 10);
  writeFileSync(path, bytes);
}

t.test(
  'whatever is done, failed and killed, the files hold what was committed, and nothing else',
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const cleanings: (() => unknown)[] = [];
        try {
          const run = await Run.start({ teardown: (clean) => cleanings.push(clean) });
          for (const one of steps) {
            await run.step(one);
            const wrong = run.check();
            if (wrong !== undefined) throw new Error(`after ${one.kind} ${one.at} ${one.to}: ${wrong}`);
          }
        } finally {
          for (const clean of cleanings.reverse()) await clean();
        }
      }),
      { numRuns: 8, examples: [[CUT_SLOT]] },
    );
  },
);
