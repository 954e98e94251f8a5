// Package batches is the logic: which records a message is about, and which of them a batch deletes. It needs no WebAssembly and is
// tested natively.
package batches

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Settings is what the route's config says.
type Settings struct {
	// Batch: at most this many records per call.
	Batch uint64
	// DelayMs: milliseconds between batches.
	DelayMs uint64
}

// ReadSettings reads the settings through get, which answers false for a key that is not there.
func ReadSettings(get func(key string) (string, bool, error)) (Settings, error) {
	batch, err := setting(get, "batch", 10, 1)
	if err != nil {
		return Settings{}, err
	}
	delay, err := setting(get, "delay-ms", 5000, 0)
	return Settings{Batch: batch, DelayMs: delay}, err
}

func setting(get func(string) (string, bool, error), key string, otherwise, least uint64) (uint64, error) {
	text, found, err := get(key)
	if err != nil {
		return 0, fmt.Errorf("config key `%s` can't be read: %w", key, err)
	}
	if !found {
		return otherwise, nil
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(text), "+"), 10, 64)
	if err != nil || number < least {
		return 0, fmt.Errorf("config key `%s` is `%s`, which is no whole number from %d", key, text, least)
	}
	return number, nil
}

// Batches is the records of one message; what a step hands on to the next.
type Batches struct {
	ID      string `json:"id"`
	Records uint64 `json:"records"`
	Deleted uint64 `json:"deleted"`
}

// Begin is what a message asks for: a JSON string (the id), an array whose first element is the id, or {"id": .., "records": ..}.
// A value that is nil is one that the message does not have.
func Begin(value []byte) (Batches, error) {
	if value == nil {
		return Batches{}, errors.New(`the message has no value; expected an id, [id] or {"id", "records"}`)
	}
	var parsed any
	if err := parse(value, &parsed); err != nil {
		return Batches{}, fmt.Errorf("the value is not JSON (%v): %s", err, excerpt(value))
	}
	var id, records any = parsed, nil
	switch parsed := parsed.(type) {
	case []any:
		id = nil
		if len(parsed) > 0 {
			id = parsed[0]
		}
	case map[string]any:
		id, records = parsed["id"], parsed["records"]
	}
	var batches Batches
	switch id := id.(type) {
	case string:
		batches.ID = id
	case json.Number:
		batches.ID = id.String()
	}
	if batches.ID == "" {
		return Batches{}, fmt.Errorf("the value holds no id (a text or a number): %s", excerpt(value))
	}
	if records == nil {
		batches.Records = derivedCount(batches.ID)
		return batches, nil
	}
	number, isNumber := records.(json.Number)
	count, err := strconv.ParseUint(number.String(), 10, 64)
	if !isNumber || err != nil {
		text, _ := json.Marshal(records)
		return Batches{}, fmt.Errorf("`records` is %s, which is no whole number from 0", text)
	}
	batches.Records = count
	return batches, nil
}

// Resume is what the previous step handed on.
func Resume(state []byte) (Batches, error) {
	// Pointers tell a field that is missing from one that is zero.
	var fields struct {
		ID      *string `json:"id"`
		Records *uint64 `json:"records"`
		Deleted *uint64 `json:"deleted"`
	}
	err := parse(state, &fields)
	if err == nil && (fields.ID == nil || fields.Records == nil || fields.Deleted == nil) {
		err = errors.New("a field is missing")
	}
	if err != nil {
		return Batches{}, fmt.Errorf("the state of the previous step can't be read (%v): %s", err, excerpt(state))
	}
	return Batches{ID: *fields.ID, Records: *fields.Records, Deleted: *fields.Deleted}, nil
}

// State is what the next step needs.
func (b Batches) State() []byte {
	var state bytes.Buffer
	encoder := json.NewEncoder(&state)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(b); err != nil {
		// A text and two numbers can always be encoded.
		panic(err)
	}
	return bytes.TrimSuffix(state.Bytes(), []byte("\n"))
}

// Remaining is how many records there are left.
func (b Batches) Remaining() uint64 {
	if b.Deleted >= b.Records {
		return 0
	}
	return b.Records - b.Deleted
}

// DeleteNext deletes the next batch and answers how many records that were.
func (b *Batches) DeleteNext(batch uint64, stepKey string) uint64 {
	count := min(b.Remaining(), batch)
	deleteRecords(b.ID, b.Deleted+1, b.Deleted+count, stepKey)
	b.Deleted += count
	return count
}

// LogLine is what is logged about a batch.
func (b Batches) LogLine(count uint64) string {
	return fmt.Sprintf("deleted %d of %d records of \"%s\", %d remain", count, b.Records, b.ID, b.Remaining())
}

// deleteRecords is where a plugin for real would delete, under stepKey so that a repetition of the call does no harm.
func deleteRecords(id string, first, last uint64, stepKey string) {}

// derivedCount is a number of records from 1 to 60 for a message that names none, the same every time.
func derivedCount(id string) uint64 {
	hash := fnv.New64a()
	io.WriteString(hash, id)
	return 1 + hash.Sum64()%60
}

// parse reads one JSON value and nothing after it. Numbers stay as they are written, or large ones would be rounded.
func parse(text []byte, into any) error {
	if !utf8.Valid(text) {
		return errors.New("it is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("there is more after the value")
	}
	return nil
}

// excerpt is the beginning of a text for an error message.
func excerpt(text []byte) string {
	const longest = 60
	runes := []rune(string(text[:min(len(text), 4*longest)]))
	if len(runes) > longest {
		return strconv.Quote(string(runes[:longest])) + "..."
	}
	return strconv.Quote(string(runes))
}
