// Texts with lengths, and a buffer that grows.
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(buffer *b, size_t more) {
  if (b->capacity - b->len >= more) return;
  size_t capacity = b->capacity + b->capacity / 2 + more + 16;
  char *ptr = realloc(b->ptr, capacity);
  // Without memory there is nothing to be said either; the host knows the reason of this end.
  if (ptr == NULL) abort();
  b->ptr = ptr;
  b->capacity = capacity;
}

void buffer_add(buffer *b, const void *bytes, size_t len) {
  if (len == 0) return;
  reserve(b, len);
  memcpy(b->ptr + b->len, bytes, len);
  b->len += len;
}

static void print(buffer *b, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int len = vsnprintf(NULL, 0, format, arguments);
  if (len < 0) abort();
  reserve(b, (size_t)len + 1);
  vsnprintf(b->ptr + b->len, (size_t)len + 1, format, again);
  va_end(again);
  b->len += (size_t)len;
}

void buffer_print(buffer *b, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print(b, format, arguments);
  va_end(arguments);
}

text buffer_text(const buffer *b) { return (text){b->ptr, b->len}; }

text text_print(const char *format, ...) {
  buffer b = {0};
  va_list arguments;
  va_start(arguments, format);
  print(&b, format, arguments);
  va_end(arguments);
  return buffer_text(&b);
}

bool text_is(text t, const char *expected) {
  return t.len == strlen(expected) && memcmp(t.ptr, expected, t.len) == 0;
}

size_t utf8_length(const uint8_t *b, size_t len) {
  if (len == 0) return 0;
  if (b[0] < 0x80) return 1;
  size_t length = b[0] >= 0xc2 && b[0] < 0xe0 ? 2 : b[0] >= 0xe0 && b[0] < 0xf0 ? 3 : b[0] >= 0xf0 && b[0] < 0xf5 ? 4 : 0;
  if (length == 0 || length > len) return 0;
  for (size_t i = 1; i < length; i++) {
    if ((b[i] & 0xc0) != 0x80) return 0;
  }
  // Too long a form, half of a surrogate pair, beyond the last character.
  if ((b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xed && b[1] >= 0xa0)) return 0;
  if ((b[0] == 0xf0 && b[1] < 0x90) || (b[0] == 0xf4 && b[1] >= 0x90)) return 0;
  return length;
}

bool text_number(text t, uint64_t *number) {
  uint64_t sum = 0;
  for (size_t i = 0; i < t.len; i++) {
    if (t.ptr[i] < '0' || t.ptr[i] > '9') return false;
    unsigned digit = (unsigned)(t.ptr[i] - '0');
    if (sum > (UINT64_MAX - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  *number = sum;
  return t.len > 0;
}
