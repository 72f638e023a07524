// The fences of the house: which folder may import which. A run of this is part of CI.
/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'queue-stands-alone',
      comment: 'The reference implementation is a target: it imports nothing of the kit.',
      severity: 'error',
      from: { path: '^reference-impl/' },
      to: { path: '^(conformance|faults|scenarios|docker)/' },
    },
    {
      name: 'queue-is-never-imported',
      comment: 'The kit reaches the queue through its command line and ports only.',
      severity: 'error',
      from: { path: '^(conformance|faults|scenarios|docker)/' },
      to: { path: '^reference-impl/' },
    },
    {
      name: 'conformance-knows-no-faults',
      comment: 'The contract does not know how it is attacked.',
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
      name: 'images-know-no-kit',
      comment: 'What makes images and machines is used by the kit, and uses nothing of it.',
      severity: 'error',
      from: { path: '^docker/' },
      to: { path: '^(conformance|faults|scenarios)/' },
    },
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-dev-in-product',
      comment: 'Only tests, and what is loaded before them, may use what users do not install.',
      severity: 'error',
      from: {
        path: '^(reference-impl|conformance|faults|scenarios|docker)/',
        pathNot: '(\\.test|/plain-children)\\.ts$',
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
