import { existsSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES, SIGNAL_EXIT_CODES } from '../../conformance/exit-codes.js';
import { findProgram } from '../../faults/programs.js';
import { commandLine, pathFromHere, schemaLocation } from '../host/command-line.js';
import { log, print } from '../host/console.js';
import { makeWritableDirectory } from '../host/directories.js';
import { type Answers, type Ask, completeAnswers, type GivenAnswers } from './init/answers.js';
import { ciFile, ciNotes } from './init/ci-file.js';
import { SKELETONS, targetAndSkeleton } from './init/skeleton.js';
import { type NewFile, writeAllOrNone } from './init/write-files.js';

export interface InitFlags extends GivenAnswers {
  out?: string;
  force?: boolean;
}

/** Reason why the questions ended before the last answer. */
class QuestionsEnded extends Error {}

/**
 * Writes a target file, a skeleton of a queue, and a file for a CI system, and prints their paths. Asks for what the flags
 * leave open if there is a terminal. Resolves to the exit code.
 * @throws KitError bad-usage for a wrong flag, or when a file exists or cannot be written. Nothing is written then.
 */
export async function initCommand(flags: InitFlags): Promise<number> {
  const { out = '.' } = flags;
  if (out.endsWith('.json'))
    throw new KitError('bad-usage', `--out ${out}: expected a folder; --name gives the target file its name`);
  let answers: Answers;
  try {
    answers = await completeAnswersOf(flags);
  } catch (error) {
    if (!(error instanceof QuestionsEnded)) throw error;
    log(`${error.message}; nothing was written`);
    return SIGNAL_EXIT_CODES.SIGINT;
  }
  const folder = resolve(out);
  const root = repositoryRoot(folder);
  const ci = ciFile(answers, relative(root, folder));
  const files: NewFile[] = [
    ...targetAndSkeleton(answers, schemaLocation(folder)).map(({ path, text }) => ({
      path: join(folder, path),
      text,
    })),
    ...(ci === undefined ? [] : [{ path: join(root, ci.path), text: ci.text }]),
  ];
  const isNew = !existsSync(folder);
  if (!isNew) makeWritableDirectory(folder, `--out ${out}`);
  const written = writeAllOrNone(files, flags.force === true, `--out ${out}`);
  for (const path of written) print(pathFromHere(path));
  if (written.length === 0) log('all files exist already with this content');
  const notes = ci === undefined ? [] : ciNotes(answers.ci, pathFromHere(join(root, ci.path)));
  for (const line of nextSteps(answers, join(folder, `${answers.name}.json`), notes)) log(line);
  return EXIT_CODES.pass;
}

/** Asks on a terminal, and takes defaults where there is none. */
async function completeAnswersOf(flags: GivenAnswers): Promise<Answers> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return completeAnswers(flags, undefined, log);
  // The questions go to stderr: stdout has the paths of the files.
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  // An iterator also keeps the lines that were typed before their question.
  const lines = terminal[Symbol.asyncIterator]();
  let isInterrupted = false;
  terminal.on('SIGINT', () => {
    isInterrupted = true;
    terminal.close();
  });
  const ask: Ask = async (question) => {
    terminal.setPrompt(question);
    terminal.prompt();
    const { done, value } = await lines.next();
    if (done !== true) return value;
    process.stderr.write('\n');
    throw new QuestionsEnded(isInterrupted ? 'interrupted' : 'the input ended before the last answer');
  };
  try {
    return await completeAnswers(flags, ask, log);
  } finally {
    terminal.close();
  }
}

/** Returns the folder of the git repository that contains `folder`, where CI systems look for their files. */
function repositoryRoot(folder: string): string {
  for (let at = folder; ; at = dirname(at)) {
    if (existsSync(join(at, '.git'))) return at;
    if (dirname(at) === at) return folder;
  }
}

/** Returns lines that say what was made and what to do next. Each command works as it is printed. */
function nextSteps(answers: Answers, targetFile: string, notes: readonly string[]): string[] {
  const { language, services, protocol } = answers;
  const target = pathFromHere(targetFile);
  const form = services === 'one' ? 'one service' : 'two services, a front and a store';
  const isOwn = language === 'none';
  const steps = [
    isOwn
      ? `in ${target}: put your commands into services, with an interpreter as in ["python3", "{dir}/queue.py"]\n     put what you promise into guarantee; with redeliverySeconds, such as the length of a lease, a gate that finds losses ends sooner; with "order": "per-producer", the order of messages is checked too`
      : `read the skeleton: its comments name each decision that keeps a message safe`,
    `${commandLine('check', target)}\n     says what can be measured here; starts nothing`,
    `${commandLine('gate', target)}\n     injects faults for 90 s and reports`,
  ];
  return [
    isOwn
      ? `a target file for your own queue over ${protocol}, ${form}`
      : `a durable queue in ${SKELETONS[language].title}, ${form}, with its target file`,
    ...missingCompiler(answers),
    ...notes.map((note) => `note: ${note}`),
    'next:',
    ...steps.flatMap((step, index) => `  ${index + 1}. ${step}`.split('\n')),
  ];
}

function missingCompiler({ language }: Answers): string[] {
  if (language === 'none') return [];
  const { program, debianPackage } = SKELETONS[language];
  // The kit runs JavaScript by its own Node.
  if (language === 'javascript' || findProgram(program) !== undefined) return [];
  return [`note: ${program} is not in PATH; on Debian: apt-get install ${debianPackage}`];
}
