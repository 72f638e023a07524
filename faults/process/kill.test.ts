import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Fault, Injection } from '../fault.js';
import { TestService, testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { killServices } from '../injection.js';
import { straceAvailability } from '../programs.js';
import { until } from '../waiting.js';
import { kill } from './kill.js';
import { killOne } from './kill-one.js';
import { killRecovery } from './kill-recovery.js';
import { killSyscall } from './kill-syscall.js';
import { pause } from './pause.js';

const SLEEPER = [process.execPath, '-e', 'setInterval(() => {}, 1000)'];

async function withServices(
  commands: Record<string, readonly string[]>,
  use: (services: TestService[], context: ReturnType<typeof testFaultContext>) => Promise<void>,
  seed = 1,
): Promise<void> {
  const { remove, ...directories } = testDirectories();
  const services = Object.entries(commands).map(([name, command]) => new TestService(name, command));
  try {
    for (const service of services) await service.start();
    await use(services, testFaultContext({ ...directories, services, random: testRandom(seed) }));
  } finally {
    await killServices(services);
    remove();
  }
}

t.test('kill takes down some or all services, by seed, and names those that are down', async (t) => {
  const scopes = new Set<string>();
  for (let seed = 1; seed <= 12; seed++) {
    await withServices(
      { a: SLEEPER, b: SLEEPER },
      async (services, context) => {
        const injection = await kill.inject(context);
        t.equal(injection.hit, true);
        const down = services.filter((service) => service.pids().length === 0).map(({ name }) => name);
        t.same([...injection.services].sort(), down, 'the services named are those that are down');
        t.equal(injection.scope, down.length === 2 ? 'all-processes' : 'some-processes');
        scopes.add(injection.scope);
      },
      seed,
    );
  }
  t.same([...scopes].sort(), ['all-processes', 'some-processes'], 'both scopes occurred');
});

t.test('kill-one takes down one of several services, and the others continue', async (t) => {
  await withServices({ a: SLEEPER, b: SLEEPER }, async (services, context) => {
    t.match(await killOne.inject(context), { hit: true, scope: 'some-processes' });
    t.equal(services.filter((service) => service.pids().length > 0).length, 1);
  });
});

t.test('a fault that finds no process is a miss', async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  const context = testFaultContext({ ...directories, services: [new TestService('gone', SLEEPER)] });
  for (const fault of [kill, killOne, killRecovery, pause] satisfies Fault[]) {
    const injection: Injection = await fault.inject(context);
    t.equal(injection.hit, false, fault.name);
    t.equal(injection.scope, 'none', fault.name);
  }
});

t.test(
  'kill-recovery starts the services again, kills them during the start, and leaves them down',
  async (t) => {
    await withServices({ a: SLEEPER }, async ([service], context) => {
      const injection = await killRecovery.inject(context);
      t.equal(injection.hit, true);
      t.ok((service?.starts ?? 0) >= 2, 'it was started again at least once');
      t.same(service?.pids(), []);
    });
  },
);

const skip = straceAvailability().available ? false : 'strace is not installed';

t.test('kill-syscall kills a service at a system call of the chosen kind', { skip }, async (t) => {
  const opens = {
    ...testRandom(1),
    pick: <T>(items: readonly T[]) => items[Math.min(4, items.length - 1)] as T,
  };
  await withServices({ a: SLEEPER }, async ([service], context) => {
    const injection = await killSyscall.inject({ ...context, random: opens });
    t.equal(injection.hit, true, injection.detail);
    t.match(injection.detail, /openat/);
    t.equal(injection.scope, 'all-processes');
    t.same(service?.pids(), []);
  });
});

t.test(
  'kill-syscall is a miss when the service makes no such call, and the service keeps running',
  { skip },
  async (t) => {
    const never = { ...testRandom(3), pick: <T>(items: readonly T[]) => items.at(0) as T };
    await withServices({ a: ['/bin/sleep', '60'] }, async (services, context) => {
      const injection = await killSyscall.inject({ ...context, services, random: never });
      t.equal(injection.hit, false, injection.detail);
      t.not(services[0]?.pids().length, 0);
    });
  },
);

t.test('pause stops a service, and heal lets it continue', async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  const file = join(directories.scratchDir, 'alive');
  const writer = `setInterval(() => require('node:fs').writeFileSync(${JSON.stringify(file)}, '1'), 2)`;
  const service = new TestService('a', [process.execPath, '-e', writer]);
  const context = testFaultContext({ ...directories, services: [service] });
  t.teardown(() => killServices([service]));
  await service.start();
  t.ok(await until(() => existsSync(file), 10_000), 'the service writes its file');
  const injection = await pause.inject(context);
  t.equal(injection.hit, true);
  t.equal(injection.scope, 'none');
  writeFileSync(file, '');
  await pause.heal(context);
  t.ok(await until(() => existsSync(file) && service.pids().length > 0, 10_000));
});

t.test('pause may kill another service while the first is stopped, and starts it again', async (t) => {
  const killed: string[][] = [];
  for (let seed = 1; seed <= 6 && killed.length === 0; seed++) {
    await withServices(
      { a: SLEEPER, b: SLEEPER },
      async (services, context) => {
        const injection = await pause.inject(context);
        await pause.heal(context);
        if (injection.scope === 'some-processes') killed.push(injection.services);
        for (const service of services) t.not(service.pids().length, 0, `${service.name} runs`);
      },
      seed,
    );
  }
  t.equal(killed.length, 1, 'one of the seeds killed the other service');
});
