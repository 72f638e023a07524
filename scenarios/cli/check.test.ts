import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import { defineTarget, loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { requirePrograms } from './check/certain.js';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.test('check reports each problem on one line with its key, also a missing program', async (t) => {
  const workspace = newWorkspace(t);
  const file = workspace.target(['{dir}/queue', '{prot}'], {
    protocol: 'ftp',
    guarantee: { faults: ['kil'], duplicatesPerCrash: -1 },
  });
  const { code, stderr, stdout } = await workspace.run(['check', file, '--json']);
  t.equal(code, 2);
  const { problems } = JSON.parse(stdout) as { problems: string[] };
  t.match(problems, [
    /^protocol: expected one of http/,
    /^guarantee\.faults\.0: expected one of kill/,
    /^guarantee\.dup/,
  ]);
  t.equal(stderr.trim().split('\n').length, problems.length);
  t.match(stderr, /guarantee\.faults\.0: .*\(did you mean kill\?\); for example "faults": \["kill"/);

  const queue = join(workspace.dir, 'queue');
  const good = workspace.target(['{dir}/queue', '{port}', '{data}']);
  const missing = await workspace.run(['check', good]);
  t.equal(missing.code, 2);
  t.match(
    missing.stderr,
    /services\.server\.command\.0: expected a program that can be run here, found .*queue/,
  );
  mkdirSync(workspace.dir, { recursive: true });
  writeFileSync(queue, '#!/bin/sh\n');
  chmodSync(queue, 0o755);
  t.equal((await workspace.run(['check', good])).code, 0);
});

t.test('check demands that some command uses {data}', async (t) => {
  const workspace = newWorkspace(t);
  const check = async (...target: Parameters<TestWorkspace['target']>) =>
    workspace.run(['check', workspace.target(...target)]);
  const without = await check(['{node}', '--data', '/var/lib/queue', '{port}']);
  t.match(without, {
    code: 2,
    stderr: /^\S+: services: expected \{data\} in the command or env of a service, or in install: .*\n$/,
  });
  t.equal((await check(['{node}', '--data={data}/queue', '{port}'])).code, 0);
  t.equal((await check(['{node}', '{port}'], { install: ['{node}', '{data}'] })).code, 0);
});
t.test(
  'check reports each file of a command that does not exist, and each program that is missing',
  async (t) => {
    const workspace = newWorkspace(t);
    writeFileSync(join(workspace.dir, 'not-executable'), '');
    const file = workspace.target(
      ['sh', '{dir}/nosuch.sh', '--config={dir}/nosuch.conf', '{data}', '{port}'],
      {
        install: ['sh', '-c', 'cc -o {dir}/made {dir}/made.c'],
        verify: ['{dir}/made', '{data}'],
        nudge: ['nosuchprogram'],
        crashStates: { restore: ['{dir}/not-executable'] },
      },
    );
    const { code, stdout } = await workspace.run(['check', file, '--json']);
    t.equal(code, 2);
    const { problems } = JSON.parse(stdout) as { problems: string[] };
    t.equal(problems.length, 4, 'install makes the program of verify, so it may be missing');
    t.match(problems, [
      /^nudge\.0: expected a program that can be run here, found nosuchprogram, which is not in PATH$/,
      /^services\.server\.command\.1: expected a file that exists, found .*nosuch\.sh, which does not exist$/,
      /^services\.server\.command\.2: expected a file that exists, found .*nosuch\.conf, which does not exist$/,
      /^crashStates\.restore\.0: expected a program .*, found .*not-executable, which is not executable/,
    ]);
  },
);

t.test('check says what cannot be measured here, why, and how to change it', async (t) => {
  const workspace = newWorkspace(t);
  const guarantee = { faults: ['kill', 'tear'], duplicatesPerCrash: 0 };
  const file = workspace.target(['{node}', '-e', '0', '{data}', '{port}'], { guarantee });
  const path = process.env.PATH;
  // A PATH without strace.
  process.env.PATH = join(workspace.dir, 'bin');
  mkdirSync(process.env.PATH);
  symlinkSync('/bin/sh', join(process.env.PATH, 'sh'));
  const [text, json] = await Promise.all([
    workspace.run(['check', file]),
    workspace.run(['check', file, '--json']),
  ]).finally(() => {
    process.env.PATH = path;
  });
  t.equal(text.code, 3, text.stderr);
  t.match(text.stderr, /1 of \d+ claimed requirements cannot be measured here: PP-16\n$/);
  t.match(text.stdout, /NO +PP-16 .*strace is not installed; install/);
  t.match(text.stdout, /yes +PP-1 /);
  t.match(text.stdout, /- +PP-12 .*power-cut in guarantee\.faults would claim it/);
  t.match(text.stdout, /gate -- \S+ --budget \d+s|gate \S+ --budget \d+s/);
  t.equal(json.code, 3);
  t.match(JSON.parse(json.stdout), {
    ok: true,
    measurable: false,
    faults: [{ name: 'kill', available: true }, {}, { name: 'tear', available: false, why: /strace/ }],
    ports: [''],
  });
});

t.test('check reports a script whose interpreter does not exist', async (t) => {
  const workspace = newWorkspace(t);
  for (const [line, missing] of [
    ['#!/usr/bin/env nosuchpython', 'nosuchpython'],
    ['#!/no/such/sh', '/no/such/sh'],
  ]) {
    writeFileSync(join(workspace.dir, 'queue'), `${line}\n`, { mode: 0o755 });
    const { code, stderr } = await workspace.run([
      'check',
      workspace.target(['{dir}/queue', '{data}', '{port}']),
    ]);
    t.equal(code, 2);
    t.match(stderr, `whose interpreter ${missing} does not exist here`);
  }
});

t.test(
  'gate, certify, explore and sweep refuse a missing program or script before anything starts',
  async (t) => {
    const workspace = newWorkspace(t);
    const missing = workspace.target(['/no/such/queue', '{port}', '{data}']);
    for (const command of ['gate', 'certify', 'explore', 'sweep']) {
      const { code, stderr, stdout } = await workspace.run([command, missing]);
      t.equal(code, 2, command);
      t.match(
        stderr.trim(),
        /^[^\n]*services\.server\.command\.0: expected a program that can be run here, found \/no\/such\/queue[^\n]*$/,
      );
      t.equal(stdout, '');
    }
    const script = workspace.target(['{node}', '{dir}/gone.mjs', '{port}', '{data}']);
    const { code, stderr } = await workspace.run(['gate', script, '--faults', 'kill']);
    t.equal(code, 2);
    t.match(stderr, /services\.server\.command\.1: expected a file that exists, found .*gone\.mjs/);
  },
);

t.test('only what no start could survive is refused before a run', (t) => {
  const target = (command: string[], more: object = {}, ofService: object = {}) =>
    defineTarget(
      {
        name: 'a',
        protocol: 'http',
        services: { server: { command, ...ofService } },
        guarantee: { faults: ['kill'], duplicatesPerCrash: 0 },
        ...more,
      },
      '/no/such/folder',
    );
  const words = ['--port', '{port}', '--data', '{data}'];
  const check = (command: string[], more?: object, ofService?: object, runtime = 'process') => {
    requirePrograms(target([...command, ...words], more, ofService), 'target.json', runtime);
  };
  t.throws(() => check(['no-such-program']), /command\.0: .*no-such-program, which is not in PATH/);
  t.throws(() => check(['{dir}/queue']), /command\.0: .*queue, which does not exist/);
  t.throws(() => check(['{node}', '{dir}/queue.mjs']), /command\.1: .*queue\.mjs, which does not exist/);
  t.throws(() => check(['{node}'], { install: ['no-such-program'] }), /install\.0: .*no-such-program/);
  t.doesNotThrow(() => check(['{node}', '--log', '{dir}/made-by-the-server']));
  t.doesNotThrow(() => check(['{node}', '{dir}/dist/queue.mjs'], { install: ['{node}', '--version'] }));
  t.doesNotThrow(() => check(['no-such-program'], {}, { env: { PATH: '/opt/queue/bin' } }));
  t.doesNotThrow(() => check(['no-such-program'], {}, {}, 'docker'));
  t.end();
});

t.test('check counts PP-3 as claimed, as the gate does, also when no claimed fault forces it', async (t) => {
  const workspace = newWorkspace(t);
  const file = workspace.target(['{node}', '{port}', '{data}']);
  const { stdout } = await workspace.run(['check', file, '--json']);
  const { requirements } = JSON.parse(stdout) as {
    requirements: { id: string; state: string; why: string }[];
  };
  const { guarantee } = loadTarget(file);
  t.notOk(guarantee.faults.includes('full'));
  t.match(
    requirements.find(({ id }) => id === 'PP-3'),
    { state: 'by-chance', why: 'only by chance: full in guarantee.faults would force it' },
  );
  const claimed = REQUIREMENTS.filter(({ isClaimedBy }) => isClaimedBy(loadTarget(file))).map(({ id }) => id);
  t.same(
    requirements.flatMap(({ id, state }) => (state === 'not-claimed' ? [] : [id])),
    claimed,
  );
});
