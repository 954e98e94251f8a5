// The logic: which records a message is about, and which of them a batch deletes. It needs no WebAssembly and is tested natively.
#ifndef BATCHES_H
#define BATCHES_H

#include "text.h"

// What the route's `config` says.
typedef struct {
  // `batch`: at most this many records per call. Default: 10.
  uint64_t batch;
  // `delay-ms`: milliseconds between batches. Default: 5000.
  uint64_t delay_ms;
} settings;

// The records of one message; what a step hands on to the next.
typedef struct {
  text id;
  uint64_t records;
  uint64_t deleted;
} batches;

// Answers whether there is such a key; `error` says why it can't be read.
typedef bool read_config(const char *key, text *value, text *error);

// Each of these answers false when something is wrong; `error` then says what, in words for the one who sent it.

bool settings_read(settings *s, read_config *get, text *error);

// What a message asks for: a JSON string (the id), an array whose first element is the id, or {"id": .., "records": ..}.
bool batches_begin(batches *b, const uint8_t *value, size_t len, text *error);

// What the previous step handed on.
bool batches_resume(batches *b, const uint8_t *state, size_t len, text *error);

// What the next step needs.
text batches_state(const batches *b);

// How many records there are left.
uint64_t batches_remaining(const batches *b);

// Deletes the next batch and answers how many records that were.
uint64_t batches_delete_next(batches *b, uint64_t batch, text step_key);

// What is logged about a batch.
text batches_log_line(const batches *b, uint64_t count);

// A number of records from 1 to 60 for a message that names none, the same every time (FNV-1a).
uint64_t derived_count(text id);

#endif
