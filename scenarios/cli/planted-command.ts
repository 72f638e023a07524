import { randomInt } from 'node:crypto';
import { plantedBugs } from '../planted/definition.js';
import { type Hunt, hunt } from '../planted/hunt.js';
import { choosePower } from '../power/by-name.js';
import { table } from '../report/table.js';
import { runtimeNamed } from '../runtime/by-name.js';
import type { Interrupts } from './interrupt.js';

export interface PlantedFlags {
  runtime: string;
  power?: string;
  seed?: number;
  budget: number;
  json?: boolean;
}

const LARGEST_RANDOM_SEED = 1_000_000;

/** Hunts planted bugs one after the other; exit code 0 when the gate has found every one that it can. */
export async function plantedCommand(
  ids: string[],
  flags: PlantedFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const bugs = plantedBugs(ids);
  const runtime = await runtimeNamed(flags.runtime);
  const power = await choosePower(flags.power, undefined, runtime.name);
  const hunts: Hunt[] = [];
  for (const bug of bugs) {
    say(`${bug.id}: ${bug.sentence}`);
    const done = await hunt(bug, {
      runtime,
      power,
      seed: flags.seed ?? randomInt(LARGEST_RANDOM_SEED),
      budgetMs: flags.budget,
      signal: interrupts.signal,
      progress: (line) => say(`  ${line}`),
    }).catch((error: unknown) => {
      // What fails because everything is being stopped is no news.
      if (interrupts.exitCode() === undefined) throw error;
      return undefined;
    });
    const interrupted = interrupts.exitCode();
    if (done === undefined || interrupted !== undefined) return interrupted ?? 130;
    say(
      `${bug.id}: found: ${done.found}, red: ${done.red.join(', ') || 'none'}, ${done.rounds} rounds, ${done.seconds} s`,
    );
    hunts.push(done);
  }
  for (const line of table(hunts.map(row))) say(line);
  if (flags.json) process.stdout.write(`${JSON.stringify(hunts)}\n`);
  return hunts.every(({ found }) => found !== 'no' && found !== 'other') ? 0 : 1;
}

function row({ id, requirement, found, red, rounds, seconds, seed }: Hunt): string[] {
  return [
    id,
    requirement,
    `found: ${found}`,
    `red: ${red.join(', ') || 'none'}`,
    `${rounds} rounds`,
    `${seconds} s`,
    `seed ${seed}`,
  ];
}
