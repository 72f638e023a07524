import { z } from 'zod';
import { TargetDefinition } from './definition.js';

/** The text of the published JSON Schema of target files; `target.schema.json` is exactly this. */
export function targetJsonSchema(): string {
  const schema = z.toJSONSchema(TargetDefinition, { io: 'input' });
  return `${JSON.stringify({ title: 'PlugPull target definition', ...schema }, null, 2)}\n`;
}
