// The sample plugin `delete-batch` as a component: translates between the contract and the logic in `batches.js`.

import { get } from 'wasi:config/store@0.2.0-rc.1';
import { Batches, Malformed, readSettings } from './batches.js';

export const handler = {
  handle(message, progress) {
    // A setting that is wrong may be mended while messages wait, so it is a reason to try again.
    const settings = orElse(() => readSettings(readConfig), (reason) => ({ tag: 'transient', val: { reason } }));
    const batches = orElse(
      () => (progress.state === undefined ? Batches.begin(message.value) : Batches.resume(progress.state)),
      (reason) => ({ tag: 'permanent', val: reason }),
    );

    const count = batches.deleteNext(settings.batch, progress.stepKey);
    console.log(batches.logLine(count));

    if (batches.remaining === 0) return { tag: 'done', val: [] };
    return { tag: 'again', val: { state: batches.state(), delayMs: settings.delayMs, events: [] } };
  },
};

/** What is thrown and no Error is the `failure` of the contract; an Error that nobody catches is a trap. */
function orElse(work, failure) {
  try {
    return work();
  } catch (e) {
    throw e instanceof Malformed ? failure(e.message) : e;
  }
}

function readConfig(key) {
  try {
    return get(key);
  } catch (e) {
    throw new Malformed(`config key \`${key}\` can't be read: ${JSON.stringify(e.payload ?? String(e))}`);
  }
}
