// As much of JSON as a plugin needs: reading a value, and writing a text.
#include "json.h"

#include <stdlib.h>
#include <string.h>

// Deeper nesting is refused rather than running out of stack.
#define DEEPEST 100

typedef struct {
  const uint8_t *at;
  const uint8_t *end;
  unsigned depth;
  const char *error;
} reader;

static bool read_value(reader *r, json *value);

static bool fail(reader *r, const char *error) {
  r->error = error;
  return false;
}

static void skip_space(reader *r) {
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
}

static bool take(reader *r, char c) {
  skip_space(r);
  if (r->at == r->end || *r->at != (uint8_t)c) return false;
  r->at++;
  return true;
}

static bool read_word(reader *r, const char *word, json_kind kind, json *value) {
  size_t len = strlen(word);
  if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0) return fail(r, "no JSON value");
  r->at += len;
  value->kind = kind;
  return true;
}

static bool read_digits(reader *r) {
  const uint8_t *begin = r->at;
  while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
  return r->at > begin || fail(r, "a digit is missing");
}

static bool read_number(reader *r, json *value) {
  const uint8_t *begin = r->at;
  if (*r->at == '-') r->at++;
  if (r->at < r->end && *r->at == '0') {
    r->at++;
  } else if (!read_digits(r)) {
    return false;
  }
  if (r->at < r->end && *r->at == '.') {
    r->at++;
    if (!read_digits(r)) return false;
  }
  if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
    r->at++;
    if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
    if (!read_digits(r)) return false;
  }
  buffer written = {0};
  buffer_add(&written, begin, (size_t)(r->at - begin));
  *value = (json){.kind = JSON_NUMBER, .text = buffer_text(&written)};
  return true;
}

static bool read_hex(reader *r, uint32_t *unit) {
  if (r->end - r->at < 4) return fail(r, "\\u wants four digits");
  *unit = 0;
  for (int i = 0; i < 4; i++) {
    uint8_t c = *r->at++;
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return fail(r, "\\u wants four digits");
    *unit = *unit * 16 + (uint32_t)digit;
  }
  return true;
}

static bool read_unicode(reader *r, buffer *out) {
  uint32_t c;
  if (!read_hex(r, &c)) return false;
  if (c >= 0xd800 && c < 0xe000) {
    uint32_t low;
    if (c >= 0xdc00 || r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') return fail(r, "half a surrogate pair");
    r->at += 2;
    if (!read_hex(r, &low)) return false;
    if (low < 0xdc00 || low >= 0xe000) return fail(r, "half a surrogate pair");
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
  }
  uint8_t utf8[4];
  size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = len - 1; i > 0; i--, c >>= 6) utf8[i] = (uint8_t)(0x80 | (c & 0x3f));
  static const uint8_t first[] = {0, 0x00, 0xc0, 0xe0, 0xf0};
  utf8[0] = (uint8_t)(first[len] | c);
  buffer_add(out, utf8, len);
  return true;
}

static bool read_escape(reader *r, buffer *out) {
  static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  uint8_t c = r->at < r->end ? *r->at++ : 0;
  if (c == 'u') return read_unicode(r, out);
  const char *found = c == 0 ? NULL : strchr(escapes, c);
  if (found == NULL) return fail(r, "an unknown escape");
  buffer_add(out, &meanings[found - escapes], 1);
  return true;
}

static bool read_text(reader *r, json *value) {
  r->at++;
  buffer out = {0};
  while (r->at < r->end && *r->at != '"') {
    if (*r->at < 0x20) return fail(r, "a control character in a text");
    if (*r->at == '\\') {
      r->at++;
      if (!read_escape(r, &out)) return false;
      continue;
    }
    size_t len = utf8_length(r->at, (size_t)(r->end - r->at));
    if (len == 0) return fail(r, "a text is not UTF-8");
    buffer_add(&out, r->at, len);
    r->at += len;
  }
  if (r->at == r->end) return fail(r, "a text does not end");
  r->at++;
  *value = (json){.kind = JSON_TEXT, .text = buffer_text(&out)};
  return true;
}

static bool read_list(reader *r, json *value, char end) {
  r->at++;
  bool object = end == '}';
  buffer items = {0}, names = {0};
  *value = (json){.kind = object ? JSON_OBJECT : JSON_ARRAY};
  if (take(r, end)) return true;
  do {
    json item = {0};
    if (object) {
      skip_space(r);
      if (r->at == r->end || *r->at != '"') return fail(r, "a member's name is missing");
      if (!read_text(r, &item)) return false;
      buffer_add(&names, &item, sizeof item);
      if (!take(r, ':')) return fail(r, "a colon is missing");
    }
    if (!read_value(r, &item)) return false;
    buffer_add(&items, &item, sizeof item);
    value->count++;
  } while (take(r, ','));
  value->items = (json *)(void *)items.ptr;
  value->names = (json *)(void *)names.ptr;
  return take(r, end) || fail(r, "a list does not end");
}

static bool read_value(reader *r, json *value) {
  skip_space(r);
  *value = (json){.kind = JSON_NULL};
  if (r->at == r->end) return fail(r, "it ends too early");
  bool list = *r->at == '[' || *r->at == '{';
  if (list && ++r->depth > DEEPEST) return fail(r, "it is nested too deep");
  bool ok;
  switch (*r->at) {
    case '[': ok = read_list(r, value, ']'); break;
    case '{': ok = read_list(r, value, '}'); break;
    case '"': ok = read_text(r, value); break;
    case 'n': ok = read_word(r, "null", JSON_NULL, value); break;
    case 't': ok = read_word(r, "true", JSON_TRUE, value); break;
    case 'f': ok = read_word(r, "false", JSON_FALSE, value); break;
    default: ok = (*r->at == '-' || (*r->at >= '0' && *r->at <= '9')) ? read_number(r, value) : fail(r, "no JSON value");
  }
  if (list) r->depth--;
  return ok;
}

const char *json_parse(const uint8_t *bytes, size_t len, json *value) {
  reader r = {.at = bytes, .end = bytes + len};
  if (!read_value(&r, value)) return r.error;
  skip_space(&r);
  return r.at == r.end ? NULL : "there is more after the value";
}

const json *json_member(const json *value, const char *name) {
  if (value == NULL || value->kind != JSON_OBJECT) return NULL;
  // From the end: of members of the same name the last one counts.
  for (size_t i = value->count; i-- > 0;) {
    if (text_is(value->names[i].text, name)) return &value->items[i];
  }
  return NULL;
}

void json_add_text(buffer *b, text t) {
  buffer_add(b, "\"", 1);
  for (size_t i = 0; i < t.len; i++) {
    uint8_t c = (uint8_t)t.ptr[i];
    if (c == '"' || c == '\\') {
      buffer_print(b, "\\%c", c);
    } else if (c < 0x20) {
      buffer_print(b, "\\u%04x", c);
    } else {
      buffer_add(b, &t.ptr[i], 1);
    }
  }
  buffer_add(b, "\"", 1);
}

void json_add_excerpt(buffer *b, const json *value) {
  static const char *const words[] = {"null", "false", "true", "", "", "[...]", "{...}"};
  if (value->kind == JSON_TEXT) {
    json_add_text(b, value->text);
  } else if (value->kind == JSON_NUMBER) {
    buffer_add(b, value->text.ptr, value->text.len);
  } else {
    buffer_print(b, "%s", words[value->kind]);
  }
}
