import fc from 'fast-check';
import t from 'tap';
import { MemoryData } from '../../common/platform/fixtures/memory-data.js';
import { forge, KEY, putRecord, smtp } from '../record/fixtures/memory-data.js';
import { SLOT_BYTES } from '../record/layout.js';
import { readSlot, type SlotContent } from '../record/record.js';
import { CachedSlotReader } from './cached-slot-reader.js';
import { scan } from './scan.js';

const SLOTS = 64;

const change = fc.record({
  what: fc.constantFrom('put', 'flip', 'zero', 'back', 'forge'),
  slot: fc.nat(SLOTS - 40),
  size: fc.nat(6000),
  at: fc.nat(SLOTS * SLOT_BYTES - 1),
});

function apply(
  data: MemoryData,
  before: Buffer,
  { what, slot, size, at }: { what: string; slot: number; size: number; at: number },
  number: number,
): void {
  if (what === 'put') putRecord(data, KEY, slot * SLOT_BYTES, number, smtp('x'.repeat(size)));
  else if (what === 'flip') data.bytes[at] = (data.bytes[at] ?? 0) ^ 4;
  else if (what === 'zero') data.bytes.fill(0, at, Math.min(at + size, data.sizeBytes));
  else if (what === 'back') before.copy(data.bytes, at, at, Math.min(at + size, data.sizeBytes));
  else forge(slot * SLOT_BYTES, smtp('forged'), () => 0).copy(data.bytes, slot * SLOT_BYTES);
}

t.test('after any change of the file a cached read equals a fresh read of every slot', async (t) => {
  let remembered = 0;
  fc.assert(
    fc.property(fc.array(fc.array(change, { maxLength: 3 }), { minLength: 2, maxLength: 12 }), (turns) => {
      const data = new MemoryData(SLOTS * SLOT_BYTES);
      const slots = new CachedSlotReader(data.sizeBytes);
      let number = 1;
      let last: SlotContent[] = [];
      for (const changes of turns) {
        const before = Buffer.from(data.bytes);
        for (const one of changes) apply(data, before, one, number++);
        slots.refresh(data);
        const ring = { start: 0, end: data.sizeBytes };
        if (JSON.stringify(scan(data, ring, KEY, slots)) !== JSON.stringify(scan(data, ring, KEY)))
          return false;
        const now: SlotContent[] = [];
        for (let slot = 0; slot < SLOTS; slot++) {
          const found = slots.read(data, KEY, slot * SLOT_BYTES);
          if (JSON.stringify(found) !== JSON.stringify(readSlot(data, KEY, slot * SLOT_BYTES))) return false;
          if (found.state === 'valid' && last[slot] === found) remembered += 1;
          now.push(found);
        }
        last = now;
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.ok(remembered > 300, `${remembered} whole records were answered from the cache`);
});
