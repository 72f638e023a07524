/** A requirement of SPEC.md, such as PP-1. */
export type Requirement = `PP-${number}`;

/** A violation of a requirement in a simulated run. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly requirement: Requirement;

  constructor(requirement: Requirement, what: string) {
    super(what);
    this.requirement = requirement;
  }
}
