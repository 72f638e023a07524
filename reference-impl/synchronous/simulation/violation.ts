/** The requirements of the contract that the simulation can see broken, by their numbers there. */
export type Requirement = 'PP-1' | 'PP-2' | 'PP-3' | 'PP-4' | 'PP-6' | 'PP-9' | 'PP-10';

/** What a simulated run has shown to be wrong. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly requirement: Requirement;

  constructor(requirement: Requirement, what: string) {
    super(what);
    this.requirement = requirement;
  }
}
