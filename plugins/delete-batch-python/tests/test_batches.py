"""Tests of the logic, natively: `python -m unittest` in the project's folder."""

import unittest

from batches import LARGEST, Batches, Malformed, Settings, derived_count


def begin(value: str) -> Batches:
    return Batches.begin(value.encode())


class Values(unittest.TestCase):
    def test_an_id_comes_alone_in_an_array_or_in_an_object(self):
        for value in ['"a"', '["a", 17]', '{"id":"a"}', '{"id":"a","records":null}']:
            self.assertEqual(begin(value).id, "a", value)
        self.assertEqual(begin("17").id, "17")
        self.assertEqual(begin("[17]").id, "17")

    def test_a_missing_count_is_derived_as_in_every_other_language(self):
        self.assertEqual([derived_count(id) for id in ["a", "rec-1", "жук"]], [17, 44, 14])
        self.assertEqual(begin('["rec-1"]').records, 44)

    def test_a_malformed_value_says_what_is_wrong(self):
        cases = [
            (None, "no value"),
            (b"{nope", "not JSON"),
            (b"\xff", "not JSON"),
            (b"NaN", "not JSON"),
            (b'"\\ud800"', "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b"{}", "no id"),
            (b"[]", "no id"),
            (b'""', "no id"),
            (b"true", "no id"),
            (b'{"id":"a","records":-1}', "`records` is -1"),
            (b'{"id":"a","records":true}', "`records` is true"),
        ]
        for value, expected in cases:
            with self.assertRaises(Malformed) as raised:
                Batches.begin(value)
            self.assertIn(expected, str(raised.exception))
        with self.assertRaises(Malformed) as raised:
            begin("é" * 1000)
        self.assertLess(len(str(raised.exception)), 300)


class Deleting(unittest.TestCase):
    def test_batches_cover_every_record_once(self):
        batches, ranges = begin('{"id":"a","records":25}'), []
        while batches.remaining > 0:
            ranges.append(batches.delete_next(10, "key"))
            batches = Batches.resume(batches.state())
        self.assertEqual(ranges, [range(1, 11), range(11, 21), range(21, 26)])

    def test_nothing_to_delete_is_done_at_once(self):
        batches = begin('{"id":"a","records":0}')
        self.assertEqual(list(batches.delete_next(10, "key")), [])
        self.assertEqual(batches.remaining, 0)

    def test_the_largest_count_is_exact(self):
        batches = begin(f'{{"id":"a","records":{LARGEST}}}')
        line = batches.log_line(batches.delete_next(LARGEST - 1, "key"))
        self.assertEqual(line, f'deleted {LARGEST - 1} of {LARGEST} records of "a", 1 remain')

    def test_a_state_that_is_none_of_ours_says_so(self):
        for state in [b"", b"[]", b"{}", b'{"id":"a","records":"1","deleted":0}', b"\xff"]:
            with self.assertRaises(Malformed):
                Batches.resume(state)


class Configuration(unittest.TestCase):
    def test_settings_have_defaults_and_say_what_is_wrong(self):
        self.assertEqual(Settings.read({}.get), Settings(10, 5000))
        self.assertEqual(Settings.read({"batch": " 3 ", "delay-ms": "0"}.get), Settings(3, 0))
        for batch in ["0", "-1", "1_000", "٣", "5s", "", str(2**64), "9" * 5000]:
            with self.assertRaisesRegex(Malformed, "config key `batch` is `"):
                Settings.read({"batch": batch}.get)


if __name__ == "__main__":
    unittest.main()
