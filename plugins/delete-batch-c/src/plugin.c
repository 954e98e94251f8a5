// The sample plugin `delete-batch` as a component: translates between the contract and the logic in batches.c.
#include "batches.h"
#include "delete_batch.h"

#include <stdio.h>
#include <string.h>

static text text_of(delete_batch_string_t s) { return (text){(char *)s.ptr, s.len}; }

// What is returned must come from malloc, as every text here does: the bindings free it.
static delete_batch_string_t string_of(text t) { return (delete_batch_string_t){(uint8_t *)t.ptr, t.len}; }

static bool get(const char *key, text *value, text *error) {
  delete_batch_string_t name;
  delete_batch_string_set(&name, key);
  delete_batch_option_string_t found;
  wasi_config_store_error_t fault;
  if (!wasi_config_store_get(&name, &found, &fault)) {
    *error = text_of(fault.val.upstream);
    return false;
  }
  *value = text_of(found.val);
  return found.is_some;
}

bool exports_pawl_worker_handler_handle(exports_pawl_worker_handler_message_t *message,
                                        exports_pawl_worker_handler_progress_t *progress,
                                        exports_pawl_worker_handler_outcome_t *outcome,
                                        exports_pawl_worker_handler_failure_t *failure) {
  text error;
  settings config;
  if (!settings_read(&config, get, &error)) {
    // It may be mended while messages wait, so it is a reason to try again.
    failure->tag = EXPORTS_PAWL_WORKER_HANDLER_FAILURE_TRANSIENT;
    failure->val.transient = (exports_pawl_worker_handler_retry_t){.reason = string_of(error)};
    return false;
  }
  delete_batch_list_u8_t state = progress->state.val, value = message->value.val;
  // An empty value may come without an address, which is not the same as no value.
  const uint8_t *bytes = !message->value.is_some ? NULL : value.len == 0 ? (const uint8_t *)"" : value.ptr;
  batches records;
  bool ok = progress->state.is_some ? batches_resume(&records, state.ptr, state.len, &error)
                                    : batches_begin(&records, bytes, value.len, &error);
  if (!ok) {
    failure->tag = EXPORTS_PAWL_WORKER_HANDLER_FAILURE_PERMANENT;
    failure->val.permanent = string_of(error);
    return false;
  }

  uint64_t count = batches_delete_next(&records, config.batch, text_of(progress->step_key));
  text line = batches_log_line(&records, count);
  fwrite(line.ptr, 1, line.len, stdout);
  putchar('\n');
  // Nothing flushes at the end of a call.
  fflush(stdout);

  memset(outcome, 0, sizeof *outcome);
  if (batches_remaining(&records) == 0) {
    outcome->tag = EXPORTS_PAWL_WORKER_HANDLER_OUTCOME_DONE;
    return true;
  }
  text handed_on = batches_state(&records);
  outcome->tag = EXPORTS_PAWL_WORKER_HANDLER_OUTCOME_AGAIN;
  outcome->val.again.state = (delete_batch_option_list_u8_t){true, {(uint8_t *)handed_on.ptr, handed_on.len}};
  outcome->val.again.delay_ms = config.delay_ms;
  return true;
}
