// Tests of the logic, natively: `make test`.
#include "batches.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed = 0, failed = 0;

#define CHECK(condition) check((condition), #condition, __LINE__)

static void check(bool ok, const char *condition, int line) {
  ok ? passed++ : failed++;
  if (!ok) printf("line %d: %s\n", line, condition);
}

static text error;

static bool begin(batches *b, const char *value) { return batches_begin(b, (const uint8_t *)value, strlen(value), &error); }

static bool contains(text t, const char *expected) {
  return strstr(text_print("%.*s", (int)t.len, t.ptr).ptr, expected) != NULL;
}

static void an_id_comes_alone_in_an_array_or_in_an_object(void) {
  const char *const values[] = {"\"a\"", "[\"a\", 17]", "{\"id\":\"a\"}", "{\"id\":\"a\",\"records\":null}", " \"\\u0061\" "};
  batches b;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) CHECK(begin(&b, values[i]) && text_is(b.id, "a"));
  CHECK(begin(&b, "17") && text_is(b.id, "17"));
  CHECK(begin(&b, "[9007199254740993]") && text_is(b.id, "9007199254740993"));
  CHECK(begin(&b, "\"\\ud83e\\udd80\\n\"") && text_is(b.id, "🦀\n"));
}

static void a_missing_count_is_derived_as_in_every_other_language(void) {
  batches b;
  CHECK(begin(&b, "\"a\"") && b.records == 17);
  CHECK(begin(&b, "[\"rec-1\"]") && b.records == 44);
  CHECK(begin(&b, "{\"id\":\"жук\"}") && b.records == 14);
}

static void a_malformed_value_says_what_is_wrong(void) {
  static const struct {
    const char *value, *expected;
  } cases[] = {
      {"", "not JSON"},          {"{nope", "not JSON"},        {"\xff", "not JSON"},         {"NaN", "not JSON"},
      {"\"\\ud800\"", "not JSON"}, {"\"\\ud800\\u0041\"", "not JSON"}, {"\"a\xc3\"", "not JSON"}, {"\"a", "not JSON"},
      {"\"\\", "not JSON"},      {"\"\\u12", "not JSON"},      {"01", "not JSON"},           {"1.", "not JSON"},
      {"-", "not JSON"},         {"[1,]", "not JSON"},         {"{\"a\":}", "not JSON"},     {"\"a\" 1", "not JSON"},
      {"nul", "not JSON"},       {"{}", "no id"},              {"[]", "no id"},              {"\"\"", "no id"},
      {"true", "no id"},         {"{\"id\":\"a\",\"records\":-1}", "`records` is -1"},
      {"{\"id\":\"a\",\"records\":\"3\"}", "`records` is \"3\""},
      {"{\"id\":\"a\",\"records\":18446744073709551616}", "no whole number"},
  };
  batches b;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bool refused = !begin(&b, cases[i].value) && contains(error, cases[i].expected);
    if (!refused) printf("%s\n", cases[i].value);
    CHECK(refused);
  }
  CHECK(!batches_begin(&b, NULL, 0, &error) && contains(error, "no value"));
  static char deep[100001], wide[2001];
  memset(deep, '[', sizeof deep - 1);
  CHECK(!begin(&b, deep) && contains(error, "too deep"));
  for (size_t i = 0; i + 1 < sizeof wide; i += 2) memcpy(wide + i, "é", 2);
  CHECK(!begin(&b, wide) && error.len < 300);
}

static void batches_cover_every_record_once(void) {
  batches b;
  uint64_t counts[3] = {0};
  CHECK(begin(&b, "{\"id\":\"a\\\"\",\"records\":25}"));
  for (int i = 0; i < 3; i++) {
    counts[i] = batches_delete_next(&b, 10, (text){0});
    text state = batches_state(&b);
    CHECK(batches_resume(&b, (const uint8_t *)state.ptr, state.len, &error) && text_is(b.id, "a\""));
  }
  CHECK(counts[0] == 10 && counts[1] == 10 && counts[2] == 5 && batches_remaining(&b) == 0);
}

static void nothing_to_delete_is_done_at_once(void) {
  batches b;
  CHECK(begin(&b, "{\"id\":\"a\",\"records\":0}") && batches_delete_next(&b, 10, (text){0}) == 0);
  CHECK(batches_remaining(&b) == 0);
}

static void the_largest_count_is_exact(void) {
  batches b;
  CHECK(begin(&b, "{\"id\":\"a\",\"records\":18446744073709551615}"));
  text line = batches_log_line(&b, batches_delete_next(&b, UINT64_MAX - 1, (text){0}));
  CHECK(text_is(line, "deleted 18446744073709551614 of 18446744073709551615 records of \"a\", 1 remain"));
}

static void a_state_that_is_none_of_ours_says_so(void) {
  const char *const states[] = {"", "[]", "{}", "{\"id\":\"a\",\"records\":\"1\",\"deleted\":0}", "\xff"};
  batches b;
  for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
    CHECK(!batches_resume(&b, (const uint8_t *)states[i], strlen(states[i]), &error) && contains(error, "previous step"));
  }
}

static const char *batch, *delay;

static bool config(const char *key, text *value, text *fault) {
  (void)fault;
  const char *found = strcmp(key, "batch") == 0 ? batch : delay;
  if (found != NULL) *value = text_print("%s", found);
  return found != NULL;
}

static void settings_have_defaults_and_say_what_is_wrong(void) {
  settings s;
  batch = delay = NULL;
  CHECK(settings_read(&s, config, &error) && s.batch == 10 && s.delay_ms == 5000);
  batch = " 3 ", delay = "0";
  CHECK(settings_read(&s, config, &error) && s.batch == 3 && s.delay_ms == 0);
  const char *const wrong[] = {"0", "-1", "5s", "", "+", "1 2", "18446744073709551616"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    batch = wrong[i];
    CHECK(!settings_read(&s, config, &error) && contains(error, "config key `batch` is `"));
  }
}

int main(void) {
  an_id_comes_alone_in_an_array_or_in_an_object();
  a_missing_count_is_derived_as_in_every_other_language();
  a_malformed_value_says_what_is_wrong();
  batches_cover_every_record_once();
  nothing_to_delete_is_done_at_once();
  the_largest_count_is_exact();
  a_state_that_is_none_of_ours_says_so();
  settings_have_defaults_and_say_what_is_wrong();
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
