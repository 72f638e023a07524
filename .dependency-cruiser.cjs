// The architecture: which folder may import which. `npm run fences` is part of CI.

/** Folders of `scenarios/` from the lowest to the highest. A folder may import those before it. */
const LAYERS = [
  ['host'],
  ['runtime'],
  ['round'],
  ['bundle'],
  // An experiment may use another one: a sweep replays schedules, a certificate rests on gates and explorations.
  ['gate', 'explore', 'replay', 'sweep', 'certify', 'systems', 'planted', 'bench'],
  ['report'],
  ['clean'],
  ['cli'],
];
/** Tests and what they load may import anything. */
const TESTS = '(\\.test\\.ts$|/fixtures/)';

const layerRules = LAYERS.slice(0, -1).map((layer, index) => {
  const higher = LAYERS.slice(index + 1).flat();
  return {
    name: `scenarios-${layer.length === 1 ? layer[0] : 'experiments'}-imports-nothing-above`,
    comment: `Imports go one way: ${LAYERS.map((names) => (names.length === 1 ? names[0] : 'experiments')).join(' < ')}.`,
    severity: 'error',
    from: { path: `^scenarios/(${layer.join('|')})/`, pathNot: TESTS },
    to: { path: `^scenarios/(${higher.join('|')})/` },
  };
});

/** @param from folder. @param allowed the only folders of the same parent that it may import. */
function only(parent, from, allowed, comment) {
  const names = [from, ...allowed].join('|');
  return {
    name: `${parent.replaceAll('/', '-')}-${from}`,
    comment,
    severity: 'error',
    from: { path: `^${parent}/${from}/`, pathNot: TESTS },
    to: { path: `^${parent}/[^/]+/`, pathNot: `^${parent}/(${names})/` },
  };
}

const COMMON = 'reference-impl/common';
const SYNCHRONOUS = 'reference-impl/synchronous';
const EXPLORE = 'scenarios/explore';
/** Browser part of the HTML report. */
const VIEWER = 'scenarios/report/viewer/src';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'reference-impl-stands-alone',
      comment: 'A reference implementation is a target: it imports nothing of the kit.',
      severity: 'error',
      from: { path: '^reference-impl/' },
      to: { path: '^(conformance|faults|scenarios|docker)/' },
    },
    {
      name: 'reference-impl-is-never-imported',
      comment: 'The kit reaches a queue through its command line and its ports only.',
      severity: 'error',
      from: { path: '^(conformance|faults|scenarios|docker)/' },
      to: { path: '^reference-impl/' },
    },
    {
      name: 'conformance-knows-no-faults',
      comment: 'The contract does not depend on how it is attacked.',
      severity: 'error',
      from: { path: '^conformance/' },
      to: { path: '^(faults|scenarios|docker)/' },
    },
    {
      name: 'faults-know-no-queues',
      comment: 'A fault acts on processes, files and devices.',
      severity: 'error',
      from: { path: '^faults/' },
      to: { path: '^(conformance|scenarios|docker)/' },
    },
    {
      name: 'docker-knows-no-kit',
      comment: 'What makes images and machines is used by the kit, and uses nothing of it.',
      severity: 'error',
      from: { path: '^docker/' },
      to: { path: '^(conformance|faults|scenarios)/' },
    },
    ...layerRules,

    only('reference-impl', 'common', [], 'What several implementations use knows none of them.'),
    only('reference-impl', 'synchronous', ['common'], 'An implementation uses nothing of another one.'),
    only('reference-impl', 'checkpointed', ['common'], 'An implementation uses nothing of another one.'),
    only(COMMON, 'platform', [], 'The seam to the operating system knows nothing of queues.'),
    only(COMMON, 'cli', ['platform'], 'Output knows no queue.'),
    only(COMMON, 'record', [], 'A checksum depends on bytes alone.'),
    only(COMMON, 'http', ['platform'], 'The HTTP front knows a queue by an interface of its own.'),
    only(COMMON, 'simulation', ['platform', 'cli'], 'The simulated machine knows nothing of queues.'),

    only(SYNCHRONOUS, 'settings', [], 'Settings are read before anything is opened.'),
    only(SYNCHRONOUS, 'record', [], 'The format of the data file does not depend on the index.'),
    only(SYNCHRONOUS, 'index', ['record'], 'The index points into the data file, never the reverse.'),
    only(SYNCHRONOUS, 'ring', ['index', 'record'], 'Space is reserved by the index alone.'),
    only(
      SYNCHRONOUS,
      'restore',
      ['index', 'ring', 'record'],
      'A restore works on files, before there is a queue.',
    ),
    only(
      SYNCHRONOUS,
      'sync',
      ['index', 'settings'],
      'The synchronization protocol does not know what a message is.',
    ),
    only(
      SYNCHRONOUS,
      'queue',
      ['restore', 'sync', 'ring', 'index', 'record', 'settings'],
      'The queue does not know which process uses it.',
    ),
    only(
      SYNCHRONOUS,
      'helper',
      ['queue', 'sync', 'index', 'settings'],
      'The helper is a process of its own beside the workers.',
    ),
    only(
      SYNCHRONOUS,
      'gateway',
      ['queue', 'record', 'settings'],
      'The gateway uses the queue by its interface, and not the sync protocol.',
    ),
    only(
      SYNCHRONOUS,
      'simulation',
      ['helper', 'queue', 'restore', 'sync', 'ring', 'index', 'record', 'settings'],
      'The simulation runs the code of the queue, without the gateway and the command line.',
    ),

    only('conformance', 'protocols', ['history'], 'A protocol reports what it saw; it does not judge.'),
    only(
      'conformance',
      'history',
      [],
      'The history is the lowest layer: everything is written in its terms.',
    ),
    only('conformance', 'target-file', ['protocols', 'history'], 'A target file names a protocol.'),
    only('conformance', 'requirements', ['target-file'], 'A requirement is claimed by a target file.'),
    only(
      'conformance',
      'checkers',
      ['history', 'requirements', 'target-file'],
      'A checker is a pure function of the history and the claims.',
    ),
    only(
      'conformance',
      'certificate',
      ['checkers', 'history', 'requirements', 'target-file'],
      'A certificate is a function of its evidence.',
    ),

    only('faults', 'files', [], 'Walking over files needs no other part.'),
    only('faults', 'tracing', ['files'], 'Tracing tells what a process did to its files.'),
    only('faults', 'write-log', [], 'The format and the model of a write log know no device.'),
    only(
      'faults',
      'power',
      ['write-log', 'files', 'link'],
      'A power backend records and cuts a disk, and compares its files.',
    ),
    only('faults', 'crash-states', ['write-log', 'power'], 'Crash states are made from a recorded disk.'),
    only('faults', 'link', [], 'Links between nodes know no process and no disk.'),
    only('faults', 'process', ['tracing', 'files', 'link'], 'Faults of processes need no disk of their own.'),
    only('faults', 'storage', ['tracing', 'files', 'link'], 'Faults of files need no power backend.'),

    only(
      'scenarios/runtime',
      'disks',
      [],
      'A disk is made in the same way under every runtime of this machine.',
    ),
    only('scenarios/runtime', 'nodes', [], 'The network of nodes knows no runtime.'),
    only('scenarios/runtime', 'process', ['boot', 'disks', 'nodes'], 'One runtime does not know the others.'),
    only('scenarios/runtime', 'docker', ['boot', 'disks', 'nodes'], 'One runtime does not know the others.'),
    only('scenarios/runtime', 'vm', ['docker', 'boot', 'nodes'], 'The lab VM runs containers.'),

    only(EXPLORE, 'record', [], 'First the run is recorded,'),
    only(EXPLORE, 'states', ['record'], 'then there is a place where crash states are made,'),
    only(EXPLORE, 'inspectors', ['states', 'record'], 'then an inspector says what one of them holds,'),
    only(
      EXPLORE,
      'strategies',
      ['inspectors', 'states', 'record'],
      'a strategy chooses which are inspected,',
    ),
    only(
      EXPLORE,
      'result',
      ['strategies', 'inspectors', 'states', 'record'],
      'and the result says what was found.',
    ),

    {
      name: 'report-viewer-runs-in-a-browser',
      comment:
        'The viewer knows a report by its model and the columns in it; nothing else of the kit runs in a browser.',
      severity: 'error',
      from: { path: `^${VIEWER}/` },
      to: {
        path: '^(reference-impl|conformance|faults|scenarios|docker)/',
        pathNot: [`^${VIEWER}/`, '^scenarios/report/html/(model|columns)\\.ts$'],
      },
    },
    {
      name: 'report-viewer-is-bundled',
      comment: 'The kit reads the bundle of the viewer, and imports none of its source.',
      severity: 'error',
      from: { path: '^(conformance|faults|scenarios|docker)/', pathNot: `^${VIEWER}/` },
      to: { path: `^${VIEWER}/` },
    },

    {
      name: 'no-file-cycles',
      comment: 'Two files that import each other are one file.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-dev-in-product',
      comment:
        'Only tests, what is loaded before them, and what is bundled at build time may use what users do not install.',
      severity: 'error',
      from: {
        path: '^(reference-impl|conformance|faults|scenarios|docker)/',
        pathNot: ['(\\.test|/plain-children|/make-viewer|/viewer/fixtures/browser)\\.ts$', `^${VIEWER}/`],
      },
      to: { dependencyTypes: ['npm-dev'], pathNot: '@types/' },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
};
