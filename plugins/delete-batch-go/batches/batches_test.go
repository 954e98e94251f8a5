// Tests of the logic, natively: `go test ./batches`.
package batches

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func begin(t *testing.T, value string) Batches {
	t.Helper()
	batches, err := Begin([]byte(value))
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return batches
}

func settings(config map[string]string) (Settings, error) {
	return ReadSettings(func(key string) (string, bool, error) {
		text, found := config[key]
		return text, found, nil
	})
}

func TestAnIDComesAloneInAnArrayOrInAnObject(t *testing.T) {
	for value, id := range map[string]string{
		`"a"`: "a", `["a", 17]`: "a", `{"id":"a"}`: "a", `{"id":"a","records":null}`: "a", `17`: "17", `[17]`: "17",
		`9007199254740993`: "9007199254740993",
	} {
		if got := begin(t, value).ID; got != id {
			t.Errorf("%s: %q", value, got)
		}
	}
}

func TestAMissingCountIsDerivedAsInEveryOtherLanguage(t *testing.T) {
	for id, count := range map[string]uint64{"a": 17, "rec-1": 44, "жук": 14} {
		if got := begin(t, fmt.Sprintf("[%q]", id)).Records; got != count {
			t.Errorf("%s: %d", id, got)
		}
	}
}

func TestAMalformedValueSaysWhatIsWrong(t *testing.T) {
	cases := map[string]string{
		"": "not JSON", "{nope": "not JSON", "\xff": "not JSON", "NaN": "not JSON", `"a" "b"`: "not JSON",
		strings.Repeat("[", 100_000): "not JSON", "{}": "no id", "[]": "no id", `""`: "no id", "true": "no id",
		`{"id":"a","records":-1}`: "`records` is -1", `{"id":"a","records":true}`: "`records` is true",
		`{"id":"a","records":"3"}`: "`records` is \"3\"",
	}
	for value, expected := range cases {
		if _, err := Begin([]byte(value)); err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%.40q: %v", value, err)
		}
	}
	if _, err := Begin(nil); err == nil || !strings.Contains(err.Error(), "no value") {
		t.Error(err)
	}
	if _, err := Begin([]byte(strings.Repeat("é", 1000))); err == nil || len(err.Error()) > 300 {
		t.Error(err)
	}
}

func TestBatchesCoverEveryRecordOnce(t *testing.T) {
	batches, counts := begin(t, `{"id":"a","records":25}`), []uint64(nil)
	for batches.Remaining() > 0 {
		counts = append(counts, batches.DeleteNext(10, "key"))
		resumed, err := Resume(batches.State())
		if err != nil || resumed != batches {
			t.Fatal(resumed, err)
		}
	}
	if !slices.Equal(counts, []uint64{10, 10, 5}) {
		t.Error(counts)
	}
}

func TestNothingToDeleteIsDoneAtOnce(t *testing.T) {
	batches := begin(t, `{"id":"a","records":0}`)
	if count := batches.DeleteNext(10, "key"); count != 0 || batches.Remaining() != 0 {
		t.Error(count, batches)
	}
}

func TestTheLargestCountIsExact(t *testing.T) {
	batches := begin(t, fmt.Sprintf(`{"id":"a","records":%d}`, uint64(math.MaxUint64)))
	line := batches.LogLine(batches.DeleteNext(math.MaxUint64-1, "key"))
	if line != `deleted 18446744073709551614 of 18446744073709551615 records of "a", 1 remain` {
		t.Error(line)
	}
}

func TestAStateThatIsNoneOfOursSaysSo(t *testing.T) {
	for _, state := range []string{"", "[]", "{}", `{"id":"a","records":"1","deleted":0}`, "\xff"} {
		if batches, err := Resume([]byte(state)); err == nil {
			t.Errorf("%q: %v", state, batches)
		}
	}
}

func TestSettingsHaveDefaultsAndSayWhatIsWrong(t *testing.T) {
	if got, err := settings(nil); err != nil || got != (Settings{10, 5000}) {
		t.Error(got, err)
	}
	if got, err := settings(map[string]string{"batch": " 3 ", "delay-ms": "0"}); err != nil || got != (Settings{3, 0}) {
		t.Error(got, err)
	}
	for _, batch := range []string{"0", "-1", "1_000", "5s", "", "18446744073709551616"} {
		if _, err := settings(map[string]string{"batch": batch}); err == nil || !strings.Contains(err.Error(), "config key `batch` is `") {
			t.Errorf("%q: %v", batch, err)
		}
	}
}
