// As much of JSON as a plugin needs: reading a value, and writing a text.
#ifndef JSON_H
#define JSON_H

#include "text.h"

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT } json_kind;

typedef struct json {
  json_kind kind;
  // Of a text: what it says. Of a number: as it is written, so that none is rounded.
  text text;
  // Of an array and an object.
  struct json *items;
  size_t count;
  // Of an object: the name of each item.
  struct json *names;
} json;

// Reads one value and nothing after it. Answers what is wrong, or NULL.
const char *json_parse(const uint8_t *bytes, size_t len, json *value);

// The member of that name, NULL if there is none or the value is no object.
const json *json_member(const json *value, const char *name);

// The text in quotes, with what JSON wants escaped.
void json_add_text(buffer *b, text t);

// A value as an error message shows it: lists are only hinted at.
void json_add_excerpt(buffer *b, const json *value);

#endif
