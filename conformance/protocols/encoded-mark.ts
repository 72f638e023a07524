/*
 * Messages as queues store them. Many queues put the bytes of a message into a text format, such as base64 in JSON.
 * The first header line of the kit is plain ASCII, so it can be found in such a text without parsing the format.
 */

/** A way to write bytes as text. `plain` covers JSON too: the mark has no character that JSON must escape. */
export type TextEncoding = 'plain' | 'base64' | 'hex' | 'quoted-printable' | 'percent' | 'JSON escapes';

/** Bytes that stand for a mark in one encoding. */
export interface EncodedMark {
  encoding: TextEncoding;
  bytes: Buffer;
  /** Length of an encoded message, divided by the length of the message. An estimate for all but base64 and hex. */
  growth: number;
}

/** Ways to write the two characters of a mark that some text formats escape: `=` and the space. */
const ESCAPED_FORMS: readonly { encoding: TextEncoding; equals: string; space: string; growth: number }[] = [
  { encoding: 'plain', equals: '=', space: ' ', growth: 1 },
  { encoding: 'quoted-printable', equals: '=3D', space: ' ', growth: 1.2 },
  { encoding: 'percent', equals: '%3D', space: '%20', growth: 1.5 },
  { encoding: 'percent', equals: '%3D', space: '+', growth: 1.5 },
  { encoding: 'percent', equals: '%3d', space: '%20', growth: 1.5 },
  { encoding: 'JSON escapes', equals: '\\u003d', space: ' ', growth: 1.2 },
  { encoding: 'JSON escapes', equals: '\\u003D', space: ' ', growth: 1.2 },
];

/**
 * Returns the forms in which a mark may be stored: as it is, escaped, in hex, and in base64 at each of the three
 * alignments. A form of base64 leaves out the characters that depend on the bytes beside the mark.
 */
export function encodedMarks(mark: Buffer): EncodedMark[] {
  const text = mark.toString('latin1');
  const escaped = ESCAPED_FORMS.map(({ encoding, equals, space, growth }) => ({
    encoding,
    bytes: Buffer.from(
      text.replaceAll(/[= ]/g, (char) => (char === '=' ? equals : space)),
      'latin1',
    ),
    growth,
  }));
  const hex = mark.toString('hex');
  return [
    ...escaped,
    { encoding: 'hex', bytes: Buffer.from(hex), growth: 2 },
    { encoding: 'hex', bytes: Buffer.from(hex.toUpperCase()), growth: 2 },
    ...BASE64_ALIGNMENTS.map((alignment) => ({
      encoding: 'base64' as const,
      bytes: base64At(mark, alignment),
      growth: 4 / 3,
    })),
  ];
}

/** Numbers of bytes that may stand between the last group of base64 and the mark. */
const BASE64_ALIGNMENTS = [0, 1, 2] as const;
const BITS_PER_BYTE = 8;
const BITS_PER_CHARACTER = 6;

function base64At(bytes: Buffer, alignment: number): Buffer {
  const text = Buffer.concat([Buffer.alloc(alignment), bytes]).toString('base64');
  const end = Math.floor(((alignment + bytes.length) * BITS_PER_BYTE) / BITS_PER_CHARACTER);
  return Buffer.from(text.slice(firstCharacter(alignment), end));
}

/** Returns the first character of base64 that depends only on the bytes behind `alignment` bytes. */
function firstCharacter(alignment: number): number {
  return Math.ceil((alignment * BITS_PER_BYTE) / BITS_PER_CHARACTER);
}

/** Upper bound of the characters in which an id and the space behind it are encoded. */
const MAX_ID_CHARACTERS = 256;
const ID = /^([\w.-]{1,64}) /;

/** Returns the ids of the messages of a run whose first header line is in these bytes, in any of the encodings. */
export function messageIdsIn(bytes: Buffer, run: string): Set<string> {
  const ids = new Set<string>();
  const add = (text: string) => {
    const id = ID.exec(text)?.[1];
    if (id !== undefined) ids.add(id);
  };
  const front = Buffer.from(`run=${run} id=`);
  const behind = (at: number) => bytes.toString('latin1', at, at + MAX_ID_CHARACTERS);
  for (const { equals, space } of ESCAPED_FORMS) {
    const needle = `run=${run} id=`.replaceAll(/[= ]/g, (char) => (char === '=' ? equals : space));
    for (const at of placesOf(bytes, Buffer.from(needle)))
      add(behind(at + needle.length).replace(space, ' '));
  }
  const hex = front.toString('hex');
  for (const needle of [hex, hex.toUpperCase()])
    for (const at of placesOf(bytes, Buffer.from(needle)))
      add(Buffer.from(behind(at + needle.length), 'hex').toString('latin1'));
  for (const alignment of BASE64_ALIGNMENTS) {
    for (const at of placesOf(bytes, base64At(front, alignment))) {
      // The characters before this place belong to the group of the first one. They only have to be there.
      const group = `${'A'.repeat(firstCharacter(alignment))}${behind(at)}`;
      const encoded = /^[\w+/-]*/.exec(group)?.[0] ?? '';
      add(Buffer.from(encoded, 'base64').toString('latin1', alignment + front.length));
    }
  }
  return ids;
}

function* placesOf(bytes: Buffer, needle: Buffer): Generator<number> {
  for (let at = bytes.indexOf(needle); at >= 0; at = bytes.indexOf(needle, at + 1)) yield at;
}
