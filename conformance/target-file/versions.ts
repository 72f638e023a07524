/** Version of the form of target files that this kit writes. It grows when an older kit could not read a new file. */
export const TARGET_FILE_VERSION = 1;

/** Address of the JSON Schema of target files. The version is in it, so that an address always means the same form. */
export const TARGET_SCHEMA_URL = schemaUrl(TARGET_FILE_VERSION);

function schemaUrl(version: number): string {
  return `https://plugpull.dev/schemas/target/v${version}.json`;
}

/** Matches the address of a schema of this kit, of any version. */
const VERSIONED_URL = /^https:\/\/plugpull\.dev\/schemas\/target\/v(\d{1,6})\.json$/;

/**
 * Describes why this kit cannot read a target file: it was written for a newer one.
 * @param json the file, not yet checked.
 * @returns undefined for a file of a known version. A file that names no version is one of the first.
 */
export function newerVersionProblem(json: unknown): string | undefined {
  if (!isRecord(json) || typeof json.$schema !== 'string') return undefined;
  const version = Number(VERSIONED_URL.exec(json.$schema)?.[1] ?? 1);
  if (version <= TARGET_FILE_VERSION) return undefined;
  return `$schema: expected version ${TARGET_FILE_VERSION} of target files or an older one, found version ${version}: use a newer PlugPull`;
}

/**
 * Converts a target file of an earlier form into the present one. Until 0.1.0, `crashStates.files` named the files that a
 * crash state was read from. The kit mounts crash states since then, and needs no names.
 */
export function toPresentForm(json: unknown): unknown {
  if (!isRecord(json) || !isRecord(json.crashStates) || !isRecord(json.crashStates.files)) return json;
  const { files, ...crashStates } = json.crashStates;
  const isEarlierForm =
    Object.keys(files).every((key) => key === 'data' || key === 'index') &&
    Object.values(files).every((name) => typeof name === 'string');
  return isEarlierForm ? { ...json, crashStates } : json;
}

function isRecord(
  value: unknown,
): value is Record<string, unknown> & { crashStates?: unknown; files?: unknown } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
