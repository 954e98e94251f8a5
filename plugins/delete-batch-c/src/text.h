// Texts with lengths, and a buffer that grows: C's own strings end at the first NUL, those of the contract need not.
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  char *ptr;
  size_t len;
} text;

// Starts as all zeros. Nothing is ever freed: each call of a plugin runs in a fresh instance, whose memory goes with it.
typedef struct {
  char *ptr;
  size_t len;
  size_t capacity;
} buffer;

void buffer_add(buffer *b, const void *bytes, size_t len);
__attribute__((format(printf, 2, 3))) void buffer_print(buffer *b, const char *format, ...);
text buffer_text(const buffer *b);

// A text made as printf would.
__attribute__((format(printf, 1, 2))) text text_print(const char *format, ...);
bool text_is(text t, const char *expected);

// The length of the UTF-8 character at `bytes`, 0 if there is none.
size_t utf8_length(const uint8_t *bytes, size_t len);

// The number that a text of decimal digits stands for; false if it is none or has more than 64 bits.
bool text_number(text t, uint64_t *number);

#endif
