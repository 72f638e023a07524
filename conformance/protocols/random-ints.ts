/** Whole numbers from 0 to `below` - 1, seeded. */
export interface RandomInts {
  int(below: number): number;
}
