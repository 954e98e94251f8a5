// The logic: which records a message is about, and which of them a batch deletes.
#include "batches.h"

#include "json.h"

#include <inttypes.h>
#include <string.h>

// The beginning of a text for an error message, as UTF-8 whatever it is.
static void add_excerpt(buffer *b, const uint8_t *bytes, size_t len) {
  enum { LONGEST = 60 };
  buffer clean = {0};
  size_t at = 0;
  for (int n = 0; at < len && n < LONGEST; n++) {
    size_t character = utf8_length(bytes + at, len - at);
    if (character == 0) {
      buffer_print(&clean, "\xef\xbf\xbd");
    } else {
      buffer_add(&clean, bytes + at, character);
    }
    at += character == 0 ? 1 : character;
  }
  json_add_text(b, buffer_text(&clean));
  if (at < len) buffer_print(b, "...");
}

static bool malformed(text *error, const char *what, const uint8_t *bytes, size_t len) {
  buffer b = {0};
  buffer_print(&b, "%s: ", what);
  add_excerpt(&b, bytes, len);
  *error = buffer_text(&b);
  return false;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool setting(uint64_t *number, read_config *get, const char *key, uint64_t otherwise, uint64_t least, text *error) {
  text written, fault = {0};
  *number = otherwise;
  if (!get(key, &written, &fault)) {
    if (fault.ptr == NULL) return true;
    *error = text_print("config key `%s` can't be read: %.*s", key, (int)fault.len, fault.ptr);
    return false;
  }
  text digits = written;
  while (digits.len > 0 && is_space(digits.ptr[0])) digits = (text){digits.ptr + 1, digits.len - 1};
  while (digits.len > 0 && is_space(digits.ptr[digits.len - 1])) digits.len--;
  if (digits.len > 1 && digits.ptr[0] == '+') digits = (text){digits.ptr + 1, digits.len - 1};
  if (text_number(digits, number) && *number >= least) return true;
  buffer b = {0};
  buffer_print(&b, "config key `%s` is `", key);
  buffer_add(&b, written.ptr, written.len);
  buffer_print(&b, "`, which is no whole number from %" PRIu64, least);
  *error = buffer_text(&b);
  return false;
}

bool settings_read(settings *s, read_config *get, text *error) {
  return setting(&s->batch, get, "batch", 10, 1, error) && setting(&s->delay_ms, get, "delay-ms", 5000, 0, error);
}

bool batches_begin(batches *b, const uint8_t *value, size_t len, text *error) {
  if (value == NULL) {
    *error = text_print("the message has no value; expected an id, [id] or {\"id\", \"records\"}");
    return false;
  }
  json parsed;
  const char *fault = json_parse(value, len, &parsed);
  if (fault != NULL) {
    return malformed(error, text_print("the value is not JSON (%s)", fault).ptr, value, len);
  }
  const json *id = &parsed, *records = NULL;
  if (parsed.kind == JSON_ARRAY) {
    id = parsed.count > 0 ? &parsed.items[0] : NULL;
  } else if (parsed.kind == JSON_OBJECT) {
    id = json_member(&parsed, "id");
    records = json_member(&parsed, "records");
  }
  if (id == NULL || (id->kind != JSON_TEXT && id->kind != JSON_NUMBER) || id->text.len == 0) {
    return malformed(error, "the value holds no id (a text or a number)", value, len);
  }
  *b = (batches){.id = id->text};
  if (records == NULL || records->kind == JSON_NULL) {
    b->records = derived_count(b->id);
  } else if (records->kind != JSON_NUMBER || !text_number(records->text, &b->records)) {
    buffer message = {0};
    buffer_print(&message, "`records` is ");
    json_add_excerpt(&message, records);
    buffer_print(&message, ", which is no whole number from 0");
    *error = buffer_text(&message);
    return false;
  }
  return true;
}

static bool count_member(const json *value, const char *name, uint64_t *count) {
  const json *member = json_member(value, name);
  return member != NULL && member->kind == JSON_NUMBER && text_number(member->text, count);
}

bool batches_resume(batches *b, const uint8_t *state, size_t len, text *error) {
  json value = {0};
  const char *fault = json_parse(state, len, &value);
  const json *id = json_member(&value, "id");
  *b = (batches){0};
  if (fault == NULL && id != NULL && id->kind == JSON_TEXT && count_member(&value, "records", &b->records) &&
      count_member(&value, "deleted", &b->deleted)) {
    b->id = id->text;
    return true;
  }
  if (fault == NULL) fault = "a field is missing or of another type";
  return malformed(error, text_print("the state of the previous step can't be read (%s)", fault).ptr, state, len);
}

text batches_state(const batches *b) {
  buffer state = {0};
  buffer_print(&state, "{\"id\":");
  json_add_text(&state, b->id);
  buffer_print(&state, ",\"records\":%" PRIu64 ",\"deleted\":%" PRIu64 "}", b->records, b->deleted);
  return buffer_text(&state);
}

uint64_t batches_remaining(const batches *b) { return b->records > b->deleted ? b->records - b->deleted : 0; }

// Where a plugin for real would delete, under `step_key` so that a repetition of the call does no harm.
static void delete_records(text id, uint64_t first, uint64_t last, text step_key) {
  (void)id, (void)first, (void)last, (void)step_key;
}

uint64_t batches_delete_next(batches *b, uint64_t batch, text step_key) {
  uint64_t remaining = batches_remaining(b), count = remaining < batch ? remaining : batch;
  delete_records(b->id, b->deleted + 1, b->deleted + count, step_key);
  b->deleted += count;
  return count;
}

text batches_log_line(const batches *b, uint64_t count) {
  buffer line = {0};
  buffer_print(&line, "deleted %" PRIu64 " of %" PRIu64 " records of \"", count, b->records);
  buffer_add(&line, b->id.ptr, b->id.len);
  buffer_print(&line, "\", %" PRIu64 " remain", batches_remaining(b));
  return buffer_text(&line);
}

uint64_t derived_count(text id) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < id.len; i++) hash = (hash ^ (uint8_t)id.ptr[i]) * 0x100000001b3;
  return 1 + hash % 60;
}
