import { shellQuote } from '../../host/shell.js';
import { kitVersion } from '../../host/version.js';
import type { Answers, CiSystem, Language } from './answers.js';
import { type InitFile, SKELETONS } from './skeleton.js';

/** Debian packages with the programs that inject faults. */
const ENGINE_PACKAGES = ['strace', 'faketime', 'qemu-system-common', 'e2fsprogs'];
const GATE_BUDGET = '120s';
/** The kit need not be in a registry, so an author must say from where npm gets it. */
const SOURCE_COMMENT =
  'CHANGE THIS to something that the runner can get: a version in your registry, a git URL, or the path of a tarball.';
const MADE_BY = 'Made by `plugpull init`. Change what you like.';

/**
 * Returns the file of a CI system; undefined for `none`. Its steps are plain commands, so that it works wherever the
 * npm package can be installed.
 * @param folder folder of the target file, relative to the root of the repository; '' when it is the root.
 */
export function ciFile({ ci, name, language }: Answers, folder: string): InitFile | undefined {
  const target = shellQuote(`./${name}.json`);
  switch (ci) {
    case 'github':
      return { path: '.github/workflows/plugpull.yml', text: githubWorkflow(target, folder) };
    case 'gitlab':
      return { path: '.gitlab-ci.yml', text: gitlabPipeline(target, language, folder) };
    case 'jenkins':
      return { path: 'Jenkinsfile', text: jenkinsPipeline(target, folder) };
    case 'none':
      return undefined;
  }
}

/** Returns what an author must do and know before the first run of a CI file, in sentences without a final full stop. */
export function ciNotes(ci: CiSystem, path: string): string[] {
  if (ci === 'none') return [];
  const note = CI_NOTES[ci];
  return [
    `set PLUGPULL in ${path} to a version, a git URL or a tarball from which the runner can install the kit`,
    ...(note === undefined ? [] : [note]),
  ];
}

const CI_NOTES: Readonly<Record<CiSystem, string | undefined>> = {
  github: undefined,
  gitlab:
    'power cuts and explorations need a GitLab runner with privileged = true; elsewhere they are not measured',
  jenkins: 'power cuts and explorations need an agent that runs as root; elsewhere they are not measured',
  none: undefined,
};

function githubWorkflow(target: string, folder: string): string {
  // A JSON string is also a YAML string.
  const inFolder =
    folder === '' ? '' : `    defaults:\n      run:\n        working-directory: ${JSON.stringify(folder)}\n`;
  const evidence = (name: string) => JSON.stringify(folder === '' ? name : `${folder}/${name}`);
  return `# ${MADE_BY}
name: plugpull
on: [push, pull_request]
permissions:
  contents: read
env:
  # ${SOURCE_COMMENT}
  PLUGPULL: plugpull@${kitVersion()}
jobs:
  gate:
    runs-on: ubuntu-24.04
    timeout-minutes: 20
${inFolder}    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-node@v4
        with: { node-version: 20 }
      # These programs inject the faults. Without one of them, its faults are not measured.
      - run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${ENGINE_PACKAGES.join(' ')}
      - run: npm install --no-save "$PLUGPULL"
      # Mounts and devices need root. Keep this user's PATH and HOME: the compilers and Node are there.
      - run: echo "AS_ROOT=sudo -E env PATH=$PATH HOME=$HOME" >> "$GITHUB_ENV"
      # Exit code 2: a mistake in the file; 3: this machine cannot measure something that the file claims.
      - run: $AS_ROOT npx plugpull check ${target}
      # Exit code 1: a requirement is violated; 3: not measured.
      - run: $AS_ROOT npx plugpull gate ${target} --budget ${GATE_BUDGET} --out evidence/gate --reporter list,github
      - if: failure()
        run: test ! -d evidence || sudo chown -R "$USER" evidence
      - if: failure()
        uses: actions/upload-artifact@v4
        with:
          name: plugpull-evidence
          path: ${evidence('evidence')}
`;
}

function gitlabPipeline(target: string, language: Language, folder: string): string {
  const packages = [...ENGINE_PACKAGES, ...(language === 'none' ? [] : [SKELETONS[language].debianPackage])];
  // The image has Node. The Debian package would be another version.
  const install = packages.filter((name) => name !== 'nodejs').join(' ');
  const lines = [
    ...(folder === '' ? [] : [`cd ${shellQuote(folder)}`]),
    'npm install --no-save "$PLUGPULL"',
    `npx plugpull gate ${target} --budget ${GATE_BUDGET} --out evidence/gate --reporter list,junit:report.xml`,
  ];
  const below = (name: string) => JSON.stringify(folder === '' ? name : `${folder}/${name}`);
  return `# ${MADE_BY}
plugpull:
  image: node:20-bookworm
  timeout: 20 minutes
  variables:
    # ${SOURCE_COMMENT}
    PLUGPULL: plugpull@${kitVersion()}
  before_script:
    # These programs inject the faults. Without one of them, its faults are not measured.
    - apt-get update && apt-get install -y --no-install-recommends ${install}
  script:
    # Power cuts need mounts and loop devices: a runner with privileged = true. Elsewhere the report lists them as not
    # measured. Exit code 1: a requirement is violated; 3: not measured.
${lines.map((line) => `    - ${JSON.stringify(line)}`).join('\n')}
  artifacts:
    when: always
    reports:
      junit: ${below('report.xml')}
    paths:
      - ${below('evidence')}
`;
}

function jenkinsPipeline(target: string, folder: string): string {
  const below = (name: string) => groovyText(folder === '' ? name : `${folder}/${name}`);
  return `// ${MADE_BY}
pipeline {
  agent any
  options { timeout(time: 20, unit: 'MINUTES') }
  environment {
    // ${SOURCE_COMMENT}
    PLUGPULL = 'plugpull@${kitVersion()}'
  }
  stages {
    stage('gate') {
      steps {
        // The agent needs Node 20.19 or later, and the programs of the queue. Power cuts need an agent that runs as root
        // and has ${ENGINE_PACKAGES.join(', ')}. Elsewhere the report lists them as not measured.
        dir(${groovyText(folder === '' ? '.' : folder)}) {
          sh 'rm -rf evidence report.xml'
          sh 'npm install --no-save "$PLUGPULL"'
          // Exit code 1: a requirement is violated; 3: not measured.
          sh ${groovyText(`npx plugpull gate ${target} --budget ${GATE_BUDGET} --out evidence/gate --reporter list,junit:report.xml`)}
        }
      }
    }
  }
  post {
    always {
      junit allowEmptyResults: true, testResults: ${below('report.xml')}
      archiveArtifacts allowEmptyArchive: true, artifacts: ${below('evidence/**')}
    }
  }
}
`;
}

/** Quotes a text for Groovy. In single quotes Groovy replaces no variables. */
function groovyText(text: string): string {
  return `'${text.replace(/[\\']/g, (mark) => `\\${mark}`)}'`;
}
