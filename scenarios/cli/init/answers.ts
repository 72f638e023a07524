import { KitError } from '../../../conformance/errors.js';
import { didYouMean } from '../../../conformance/nearest.js';
import { TargetDefinition } from '../../../conformance/target-file/definition.js';
import { protocolNames } from '../../../conformance/target-file/starter.js';

/** Languages of the skeletons; `none` writes the target file only, for a queue that exists already. */
export const LANGUAGES = ['python', 'javascript', 'go', 'rust', 'c', 'none'] as const;
export type Language = (typeof LANGUAGES)[number];

/** Forms of a target: one process, or a front that accepts and a store behind it. */
export const FORMS = ['one', 'several'] as const;
export type Form = (typeof FORMS)[number];

/** CI systems for which a file can be written. */
export const CI_SYSTEMS = ['github', 'gitlab', 'jenkins', 'none'] as const;
export type CiSystem = (typeof CI_SYSTEMS)[number];

/** What `init` needs to know. */
export interface Answers {
  name: string;
  protocol: string;
  language: Language;
  services: Form;
  ci: CiSystem;
}

/** Answers that the user has given as flags. */
export type GivenAnswers = Readonly<Partial<Record<keyof Answers, string>>>;

/** Returns the user's answer to a question, or '' for the default. */
export type Ask = (question: string) => Promise<string>;

/** The only protocol that has skeletons. */
export const SKELETON_PROTOCOL = 'http';

interface Question {
  key: keyof Answers;
  text: string;
  /** Allowed answers; undefined: `check` decides. */
  options?: readonly string[];
  fallback: string;
}

const QUESTIONS: readonly Question[] = [
  { key: 'name', text: 'Name of the queue', fallback: 'my-queue' },
  {
    key: 'protocol',
    text: 'Protocol of the queue',
    options: protocolNames(),
    fallback: 'http',
  },
  {
    key: 'language',
    text: 'Language of the skeleton; none if the queue exists already',
    options: LANGUAGES,
    fallback: 'python',
  },
  {
    key: 'services',
    text: 'One service, or several: a front that accepts, and a store',
    options: FORMS,
    fallback: 'one',
  },
  { key: 'ci', text: 'CI file', options: CI_SYSTEMS, fallback: 'github' },
];

/**
 * Completes the answers that flags gave: by questions, or by defaults when nobody can be asked.
 * @param ask undefined when there is no terminal.
 * @param say called with each line for the user.
 * @throws KitError bad-usage when a flag has a wrong value.
 */
export async function completeAnswers(
  given: GivenAnswers,
  ask: Ask | undefined,
  say: (line: string) => void,
): Promise<Answers> {
  for (const question of QUESTIONS) {
    const value = given[question.key];
    const problem = value === undefined ? undefined : problemOf(question, value);
    if (problem !== undefined)
      throw new KitError('bad-usage', `--${question.key} ${value}: expected ${problem}`);
  }
  const answers: Record<string, string> = {};
  const chosen: string[] = [];
  for (const question of QUESTIONS) {
    const isMoot = question.key === 'language' && answers.protocol !== SKELETON_PROTOCOL;
    let value = given[question.key];
    if (isMoot) value = 'none';
    if (value === undefined) {
      value = ask === undefined ? question.fallback : await askUntilRight(question, ask, say);
      chosen.push(`--${question.key} ${value}`);
    }
    answers[question.key] = value;
  }
  if (ask === undefined && chosen.length > 0)
    say(`there is no terminal for questions; these defaults are used: ${chosen.join(' ')}`);
  if (given.language !== undefined && given.language !== answers.language)
    say(
      `--language ${given.language}: there is no skeleton for the protocol ${answers.protocol}, only for ${SKELETON_PROTOCOL}; only the target file is written`,
    );
  return answers as unknown as Answers;
}

async function askUntilRight(question: Question, ask: Ask, say: (line: string) => void): Promise<string> {
  const { text, options, fallback } = question;
  const choice = options === undefined ? '' : ` (${options.join(', ')})`;
  for (;;) {
    const value = (await ask(`${text}${choice} [${fallback}]: `)).trim() || fallback;
    const problem = problemOf(question, value);
    if (problem === undefined) return value;
    say(`expected ${problem}`);
  }
}

/** Returns what was expected instead of this value, or undefined when the value is right. */
function problemOf({ options }: Question, value: string): string | undefined {
  if (options === undefined) {
    const parsed = TargetDefinition.shape.name.safeParse(value);
    return parsed.success ? undefined : parsed.error.issues[0]?.message;
  }
  if (options.includes(value)) return undefined;
  return `one of ${options.join(', ')}${didYouMean(value, options)}`;
}
