import { closeSync, fsyncSync, openSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { printLine } from '../../common/cli/output.js';
import { syncDirectory } from '../../common/platform/directory.js';
import { FILE_MODE } from '../../common/platform/kernel.js';
import { installQueue } from '../queue/install.js';
import { INSTALLED_SETTINGS_FILE, installedText } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';

/**
 * Creates the files of the queue, and `queue.json` as the last of them. A directory with `queue.json`
 * contains a complete queue.
 */
export async function install(settings: QueueSettings): Promise<void> {
  await installQueue(settings);
  const file = join(settings.directory, INSTALLED_SETTINGS_FILE);
  const fd = openSync(`${file}.new`, 'w', FILE_MODE);
  try {
    writeSync(fd, installedText(settings));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(`${file}.new`, file);
  syncDirectory(settings.directory);
  await printLine({ event: 'installed', directory: settings.directory });
}
