import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Dockerode from 'dockerode';
import t from 'tap';
import { kitImage, referenceImage } from './image/images.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const LIMIT_MS = 60_000;

function works(command: string, ...args: string[]): boolean {
  return spawnSync(command, args).status === 0;
}

const engine = new Dockerode();
const compose = works('docker', 'compose', 'version')
  ? ['docker', 'compose']
  : works('docker-compose', 'version')
    ? ['docker-compose']
    : [];
const answers = await engine.ping().then(
  () => true,
  () => false,
);
const skip = !answers
  ? 'no container engine answers: npm run setup'
  : compose.length === 0
    ? 'docker-compose is not installed: npm run setup'
    : false;

t.test(
  'the site delivers all confirmed mail through both gateways, also when workers and helpers are killed',
  {
    skip,
    timeout: 200_000,
  },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'plugpull-site-'));
    const options = { engine, root, workDir: dir, say: () => {} };
    const envFile = join(dir, 'images.env');
    const images = [await referenceImage(options), await kitImage(options)];
    writeFileSync(envFile, `PLUGPULL_REFERENCE_IMAGE=${images[0]}\nPLUGPULL_KIT_IMAGE=${images[1]}\n`);
    const project = `plugpull-test-${process.pid}`;
    const site = (...args: string[]): string => {
      const [program = '', ...front] = compose;
      const all = [...front, '--project-name', project, '--env-file', envFile, '--file'];
      const run = spawnSync(program, [...all, join(root, 'docker/compose.yaml'), ...args], {
        encoding: 'utf8',
      });
      if (run.status !== 0) throw new Error(`${args.join(' ')}: ${run.stderr}`);
      return run.stdout;
    };
    const containers = () =>
      engine.listContainers({ all: true, filters: { label: [`com.docker.compose.project=${project}`] } });
    const service = async (name: string) => {
      const found = (await containers()).find(({ Labels }) => Labels['com.docker.compose.service'] === name);
      if (found === undefined) throw new Error(`no container for ${name}`);
      return engine.getContainer(found.Id);
    };
    const ids = (text: string, key: string) =>
      [...text.matchAll(new RegExp(`"${key}":"([^"]+)"`, 'g'))].map(([, id = '']) => id);
    const confirmed = () => ids(site('logs', '--no-color', 'sender'), 'confirmed');
    const delivered = () => ids(site('logs', '--no-color', 'destination'), 'delivered');
    const reach = async (what: string, holds: () => boolean) => {
      const deadline = performance.now() + LIMIT_MS;
      while (!holds()) {
        if (performance.now() > deadline) throw new Error(`${what}: not within ${LIMIT_MS} ms`);
        await delay(300);
      }
    };

    t.teardown(() => {
      site('down', '--volumes', '--timeout', '1');
      rmSync(dir, { recursive: true, force: true });
    });
    site('up', '--detach');
    await reach('mail at the destination', () => delivered().length >= 2);
    t.match(site('logs', '--no-color', 'destination'), '"by":"inner.site.example"');

    const victims = ['edge-helper', 'edge-worker-a', 'inner-helper', 'inner-worker-b'];
    for (const name of victims) await (await service(name)).kill({ signal: 'SIGKILL' });
    const before = confirmed().length;
    for (const name of victims) await (await service(name)).start();
    await reach('mail confirmed after the crash', () => confirmed().length >= before + 2);
    const owed = confirmed();
    await reach('all that was confirmed', () => {
      const there = new Set(delivered());
      return owed.every((id) => there.has(id));
    });
    t.ok(owed.length > before);
  },
);
