// The logic: which records a message is about, and which of them a batch deletes. It needs no WebAssembly and is tested natively.

/** What is wrong with a message, a state or a setting, in words for the one who sent it. */
export class Malformed extends Error {}

const LARGEST = 2n ** 64n - 1n;

/** What the route's `config` says, read through `get(key)`. BigInt, as all 64-bit numbers of the contract. */
export function readSettings(get) {
  return { batch: setting(get, 'batch', 10n, 1n), delayMs: setting(get, 'delay-ms', 5000n, 0n) };
}

function setting(get, key, otherwise, least) {
  const text = get(key);
  if (text === undefined) return otherwise;
  // Not BigInt() alone: it takes '', '-1' and '0x10'. 20 digits hold every number of 64 bits.
  const digits = /^\+?0*([0-9]{1,20})$/.exec(text.trim());
  const number = digits ? BigInt(digits[1]) : -1n;
  if (number < least || number > LARGEST) {
    throw new Malformed(`config key \`${key}\` is \`${text}\`, which is no whole number from ${least}`);
  }
  return number;
}

/** The records of one message; what a step hands on to the next. */
export class Batches {
  constructor(id, records, deleted = 0) {
    Object.assign(this, { id, records, deleted });
  }

  /** What a message asks for: a JSON string (the id), an array whose first element is the id, or {"id": .., "records": ..}. */
  static begin(value) {
    if (value === undefined) {
      throw new Malformed('the message has no value; expected an id, [id] or {"id", "records"}');
    }
    let json;
    try {
      json = parse(value);
    } catch (e) {
      throw new Malformed(`the value is not JSON (${e.message}): ${excerpt(value)}`);
    }
    let [id, records] = [json, undefined];
    if (Array.isArray(json)) [id, records] = [json[0], undefined];
    else if (typeof json === 'object' && json !== null) ({ id, records } = json);

    if (typeof id === 'number') {
      // Beyond, parsing has rounded already: two ids could become one.
      if (Math.abs(id) > Number.MAX_SAFE_INTEGER) {
        throw new Malformed(`the id is a number beyond 2^53 - 1, which needs quotes around it: ${excerpt(value)}`);
      }
      id = String(id);
    }
    if (typeof id !== 'string' || id === '') {
      throw new Malformed(`the value holds no id (a text or a number): ${excerpt(value)}`);
    }
    if (records === undefined || records === null) records = derivedCount(id);
    if (!isCount(records)) {
      throw new Malformed(`\`records\` is ${JSON.stringify(records)}, which is no whole number from 0 to 2^53 - 1`);
    }
    return new Batches(id, records);
  }

  /** What the previous step handed on. */
  static resume(state) {
    try {
      const { id, records, deleted } = parse(state);
      if (typeof id !== 'string' || !isCount(records) || !isCount(deleted)) throw new Error('a field is of another type');
      return new Batches(id, records, deleted);
    } catch (e) {
      throw new Malformed(`the state of the previous step can't be read (${e.message}): ${excerpt(state)}`);
    }
  }

  /** What the next step needs. */
  state() {
    const { id, records, deleted } = this;
    return new TextEncoder().encode(JSON.stringify({ id, records, deleted }));
  }

  /** How many records there are left. */
  get remaining() {
    return Math.max(this.records - this.deleted, 0);
  }

  /** Deletes the next batch and answers how many records that were. */
  deleteNext(batch, stepKey) {
    const count = Math.min(this.remaining, Number(batch));
    deleteRecords(this.id, this.deleted + 1, this.deleted + count, stepKey);
    this.deleted += count;
    return count;
  }

  /** What is logged about a batch. */
  logLine(count) {
    return `deleted ${count} of ${this.records} records of "${this.id}", ${this.remaining} remain`;
  }
}

/** Where a plugin for real would delete, under `stepKey` so that a repetition of the call does no harm. */
function deleteRecords(id, first, last, stepKey) {}

/** A number of records from 1 to 60 for a message that names none, the same every time (FNV-1a). */
export function derivedCount(id) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(id)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return 1 + Number(hash % 60n);
}

/** JSON as the standard has it: valid UTF-8 only, and no text that UTF-8 can't hold (half a surrogate pair, escaped). */
function parse(bytes) {
  return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes), (_, value) => {
    if (typeof value === 'string' && !value.isWellFormed()) throw new Error('half a surrogate pair');
    return value;
  });
}

function isCount(value) {
  return Number.isSafeInteger(value) && value >= 0;
}

/** The beginning of a text for an error message. */
function excerpt(bytes) {
  const longest = 60;
  const characters = [...new TextDecoder().decode(bytes.subarray(0, 4 * longest))];
  const quoted = JSON.stringify(characters.slice(0, longest).join(''));
  return characters.length > longest ? `${quoted}...` : quoted;
}
