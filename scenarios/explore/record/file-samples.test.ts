import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../../faults/waiting.js';
import { FileSampler, filesIn, lostSince, readSamples, saveSamples, undoneRenames } from './file-samples.js';

function directory(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-samples-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

t.test('a disk that does not answer stops no run, and the sampler ends when the load fails', async (t) => {
  let calls = 0;
  const sampler = new FileSampler(directory(t), () => {
    calls++;
    throw new Error('the disk has stopped');
  });
  t.teardown(() => sampler.stop());
  let callsAtFailure = 0;
  const load = sampler.during(async () => {
    // A sample of the timer is among them. An error there would be uncaught.
    await until(() => calls >= 2, 60_000);
    callsAtFailure = calls;
    throw new Error('the load has failed');
  });
  await t.rejects(load, { message: 'the load has failed' });
  t.equal(calls, callsAtFailure + 1, 'the last sample was taken');
  t.same(sampler.samples, []);
});

const SAMPLES = [
  { entries: 10, sizes: { 'base.log': 500, 'seg-1.log': 90, 'seg-2.log': 20 } },
  { entries: 20, sizes: { 'base.log': 500, 'seg-2.log': 60 } },
];

t.test(
  'a file that is shorter or missing in a crash state is listed with the size that the target saw',
  async (t) => {
    t.match(lostSince(SAMPLES, { 'base.log': 0 }, 15), [
      { seenAt: 10, certain: true, lost: { file: 'base.log', sizeBytes: 500, sizeAfterBytes: 0 } },
      { seenAt: 10, certain: true, lost: { file: 'seg-2.log', sizeBytes: 20, sizeAfterBytes: null } },
    ]);
  },
);

t.test(
  'a file that the target itself removed around the cut, or that grew meanwhile, is no proven loss',
  async (t) => {
    t.match(lostSince(SAMPLES, { 'base.log': 500, 'seg-2.log': 20 }, 15), [
      { certain: false, lost: { file: 'seg-1.log' } },
    ]);
    t.same(lostSince(SAMPLES, { 'base.log': 500, 'seg-1.log': 90, 'seg-2.log': 20 }, 15), []);
  },
);

t.test(
  'a file that only one of the two samples shows is lost when the state has it with too few bytes',
  async (t) => {
    const samples = [
      { entries: 10, sizes: { 'base-1.log': 500 } },
      { entries: 20, sizes: { 'base-2.log': 700 } },
    ];
    t.match(lostSince(samples, { 'base-1.log': 100 }, 15), [{ seenAt: 10, lost: { file: 'base-1.log' } }]);
    t.match(lostSince(samples, { 'base-2.log': 0 }, 15), [
      { seenAt: 20, lost: { file: 'base-2.log', sizeBytes: 700 } },
    ]);
    t.match(lostSince(samples, { 'base-2.log': 100 }, 15), [
      { certain: false, lost: { file: 'base-1.log' } },
    ]);
  },
);

t.test('a cut before the first sample or after the last one shows no loss', async (t) => {
  t.same(lostSince(SAMPLES, {}, 5), []);
  t.same(lostSince(SAMPLES, {}, 25), []);
});

t.test('a sampler sees the files at its start and at its end, and its samples are read back', async (t) => {
  const dir = directory(t);
  writeFileSync(join(dir, 'a.log'), 'abc');
  let entries = 1;
  const sampler = new FileSampler(dir, () => entries);
  sampler.start();
  entries = 7;
  appendFileSync(join(dir, 'a.log'), 'de');
  sampler.stop();
  t.match(sampler.samples[0], { entries: 1, sizes: { 'a.log': 3 } });
  t.match(sampler.samples.at(-1), { entries: 7, sizes: { 'a.log': 5 } });
  const evidence = directory(t);
  saveSamples(sampler.samples, evidence);
  t.same(readSamples(evidence), sampler.samples);
  t.same(readSamples(dir), [], 'evidence of an older kit has none');
  t.same(filesIn(dir).sizes, { 'a.log': 5 });
});

t.test('a file that has its old name again in a crash state is found by its identity', async (t) => {
  const dir = directory(t);
  writeFileSync(join(dir, 'log'), 'old');
  writeFileSync(join(dir, 'log.new'), 'whole');
  const before = filesIn(dir);
  renameSync(join(dir, 'log.new'), join(dir, 'log'));
  const renamed = filesIn(dir);
  const samples = [
    { entries: 5, ...before },
    { entries: 9, ...renamed },
    { entries: 12, sizes: renamed.sizes },
  ];
  t.same(undoneRenames(samples, before, 14), [
    { file: 'log', nameAfter: 'log.new', seenAt: 9, certain: true },
  ]);
  t.same(undoneRenames(samples, renamed, 14), [], 'the rename reached the disk');
  t.match(undoneRenames(samples, before, 7), [{ file: 'log', certain: false }], 'seen after the cut only');
});
