import { lstatSync, realpathSync } from 'node:fs';
import { relative } from 'node:path';
import type { Aim, FaultContext, Random, SyncMemory } from '../fault.js';
import { logUniformInt } from '../random-choice.js';
import { SYNC_CALLS } from './call-kinds.js';
import type { ConfirmedLog } from './calls-after-confirmation.js';
import { descriptorOf, parseStraceLog } from './strace-log.js';

/** A place in the work of a target that syncs: a kind of thread, a system call and a kind of file. */
interface Site {
  isDirectory: boolean;
  /** Positions at which a sync of this site came after the first confirmation. */
  positions: Set<number>;
  /** Number of injections that were aimed at the site. */
  aims: number;
  /** Whether a sync of the site has failed while a confirmation could rest on it. */
  hasFailed: boolean;
}

/** Number of injections that are aimed at a site. If none of them makes it fail, it is left to chance. */
const MAX_AIMS = 2;
/** Upper bound of the sites. The names of files may differ in a way that `patternOf` does not know. */
const MAX_SITES = 32;
/** On average, one of this number of aims takes any site that has not failed, and not the first in order. */
const ANY_SITE_EVERY = 6;
/** While a site has not failed, one of this number of draws takes writes, unless the draw before did so. */
const WRITES_EVERY = 3;

/**
 * The places at which a target syncs, as the traces of a run have shown them. A position that is drawn uniformly often
 * hits the syncs of the busiest thread, and seldom those that a process makes once in its life. Therefore an injection
 * first aims at a site that has not failed in this run. Directories come first, because programs check their syncs least,
 * and what a process does once in its life comes before what it does again and again.
 */
export class SyncSites implements SyncMemory {
  readonly #sites = new Map<string, Site>();
  /** Whether the last draw took writes. True at first: the first aim is at syncs, because other faults let writes fail too. */
  #hadWrites = true;
  #hasLearned = false;

  /** True until the first `learn`. */
  get isEmpty(): boolean {
    return !this.#hasLearned;
  }

  /**
   * Notes the sites of a start under strace, and which of them have failed.
   * @param logs logs that show paths, of services in a fixed order. Only calls after the first confirmation count, and
   *   those that have failed: a confirmation has come after them.
   */
  learn(logs: readonly ConfirmedLog[], { dataDir }: Pick<FaultContext, 'dataDir'>): void {
    this.#hasLearned = true;
    const names = new Set<string>(SYNC_CALLS);
    const root = realpathSync(dataDir);
    for (const [service, { text, confirmedOffset }] of logs.entries()) {
      const kinds = new Map<number, string>();
      const counts = new Map<string, number>();
      for (const { thread, name, args, result, doneOffset } of parseStraceLog(text)) {
        if (!names.has(name)) continue;
        const count = (counts.get(`${thread} ${name}`) ?? 0) + 1;
        counts.set(`${thread} ${name}`, count);
        const path = descriptorOf(args[0])?.path;
        const pattern = path === undefined ? '' : patternOf(relative(root, path));
        // What the target syncs elsewhere holds no message.
        if (pattern === undefined) continue;
        const kind = kinds.get(thread) ?? pattern;
        kinds.set(thread, kind);
        const isFailure = result?.includes('(INJECTED)') === true;
        if (!isFailure && (result === undefined || doneOffset <= confirmedOffset)) continue;
        const site = this.#siteOf(JSON.stringify([service, kind, name, pattern]), path);
        if (isFailure) site.hasFailed = true;
        else site.positions.add(count);
      }
    }
  }

  /**
   * Chooses a site that has not failed, counts the aim, and draws one of its positions. Now and then it draws writes
   * instead.
   * @returns undefined when no such site is known: the fault then draws everything itself.
   */
  draw(random: Random): Aim | undefined {
    const fresh = [...this.#sites.values()].filter(
      ({ hasFailed, aims, positions }) => !hasFailed && aims < MAX_AIMS && positions.size > 0,
    );
    if (fresh.length === 0) return undefined;
    this.#hadWrites = !this.#hadWrites && random.int(WRITES_EVERY) === 0;
    if (this.#hadWrites) return { calls: 'write' };
    const order = (one: Site, other: Site) =>
      Number(other.isDirectory) - Number(one.isDirectory) ||
      one.aims - other.aims ||
      one.positions.size - other.positions.size;
    // Runs with few injections would otherwise all try the same site.
    const [first] = fresh.sort(order);
    const site = first === undefined || random.int(ANY_SITE_EVERY) === 0 ? random.pick(fresh) : first;
    site.aims++;
    const positions = [...site.positions].sort((one, other) => one - other);
    return { calls: 'sync', position: positions[logUniformInt(random, 1, positions.length) - 1] };
  }

  #siteOf(key: string, path: string | undefined): Site {
    const known = this.#sites.get(key);
    if (known !== undefined) return known;
    const site: Site = {
      isDirectory: path !== undefined && lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true,
      positions: new Set(),
      aims: 0,
      hasFailed: false,
    };
    if (this.#sites.size < MAX_SITES) this.#sites.set(key, site);
    return site;
  }
}

/**
 * Replaces what differs between files of one kind, such as numbers and ids: runs of letters and digits that have a digit,
 * but not the word before a number, as in `segment17`. Returns undefined for a path outside the data directory.
 * @param path relative to the data directory.
 */
function patternOf(path: string): string | undefined {
  if (path === '..' || path.startsWith('../')) return undefined;
  return path.replaceAll(
    /[\p{L}\p{N}]*\p{N}[\p{L}\p{N}]*/gu,
    (id) => `${/^(\p{L}{3,})\p{N}+$/u.exec(id)?.[1] ?? ''}#`,
  );
}
