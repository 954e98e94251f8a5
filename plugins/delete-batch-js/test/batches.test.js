// Tests of the logic, natively: `npm test`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Batches, Malformed, derivedCount, readSettings } from '../src/batches.js';

const bytes = (text) => new TextEncoder().encode(text);
const begin = (text) => Batches.begin(bytes(text));
const settings = (config) => readSettings((key) => config[key]);

test('an id comes alone, in an array or in an object', () => {
  for (const value of ['"a"', '["a", 17]', '{"id":"a"}', '{"id":"a","records":null}']) {
    assert.equal(begin(value).id, 'a', value);
  }
  assert.equal(begin('17').id, '17');
  assert.equal(begin('[17]').id, '17');
});

test('a missing count is derived as in every other language', () => {
  assert.deepEqual(['a', 'rec-1', 'жук'].map(derivedCount), [17, 44, 14]);
  assert.equal(begin('["rec-1"]').records, 44);
});

test('a malformed value says what is wrong', () => {
  assert.throws(() => Batches.begin(undefined), /no value/);
  for (const [value, expected] of [
    ['{nope', /not JSON/],
    ['NaN', /not JSON/],
    ['"\\ud800"', /not JSON/],
    ['['.repeat(100_000), /not JSON/],
    ['{}', /no id/],
    ['[]', /no id/],
    ['null', /no id/],
    ['true', /no id/],
    ['""', /no id/],
    ['9007199254740993', /needs quotes/],
    ['{"id":"a","records":-1}', /`records` is -1/],
    ['{"id":"a","records":true}', /`records` is true/],
    ['{"id":"a","records":9007199254740993}', /no whole number/],
  ]) {
    assert.throws(() => begin(value), (e) => e instanceof Malformed && expected.test(e.message), value.slice(0, 50));
  }
  assert.throws(() => Batches.begin(new Uint8Array([0xff])), /not JSON/);
  assert.throws(() => begin('é'.repeat(1000)), (e) => e.message.length < 300);
});

test('batches cover every record once', () => {
  let batches = begin('{"id":"a","records":25}');
  const counts = [];
  while (batches.remaining > 0) {
    counts.push(batches.deleteNext(10n, 'key'));
    batches = Batches.resume(batches.state());
  }
  assert.deepEqual(counts, [10, 10, 5]);
});

test('nothing to delete is done at once', () => {
  const batches = begin('{"id":"a","records":0}');
  assert.equal(batches.deleteNext(10n, 'key'), 0);
  assert.equal(batches.remaining, 0);
});

test('the largest count is exact', () => {
  const batches = begin(`{"id":"a","records":${Number.MAX_SAFE_INTEGER}}`);
  assert.equal(
    batches.logLine(batches.deleteNext(BigInt(Number.MAX_SAFE_INTEGER) - 1n, 'key')),
    'deleted 9007199254740990 of 9007199254740991 records of "a", 1 remain',
  );
});

test('a state that is none of ours says so', () => {
  for (const state of ['', '[]', 'null', '{}', '{"id":"a","records":"1","deleted":0}']) {
    assert.throws(() => Batches.resume(bytes(state)), Malformed, state);
  }
});

test('settings have defaults and say what is wrong', () => {
  assert.deepEqual(settings({}), { batch: 10n, delayMs: 5000n });
  assert.deepEqual(settings({ batch: ' 3 ', 'delay-ms': '0' }), { batch: 3n, delayMs: 0n });
  for (const batch of ['0', '-1', '0x10', '5s', '', String(2n ** 64n), '9'.repeat(5000)]) {
    assert.throws(() => settings({ batch }), /config key `batch` is `/, batch);
  }
});
