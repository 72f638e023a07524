/** Seeded source of random integers from 0 to `below` - 1. */
export interface RandomInts {
  int(below: number): number;
}
