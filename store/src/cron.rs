//! Cron expressions: five fields, or six with seconds first, in UTC.

use chrono::{DateTime, Utc};
use std::str::FromStr;

/// An expression that was understood.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    parsed: Box<croner::Cron>,
}

impl Cron {
    /// Understands an expression, or says what is wrong with it.
    pub fn parse(text: String) -> Result<Self, String> {
        match croner::Cron::from_str(&text) {
            Ok(parsed) => Ok(Cron { text, parsed: Box::new(parsed) }),
            Err(e) => Err(e.to_string()),
        }
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// The first time strictly after `after`, in milliseconds since the Unix epoch. `None`: there is none.
    pub fn next(&self, after: i64) -> Option<i64> {
        // Occurrences fall on whole seconds, and the parts of one would be carried into the answer.
        let after: DateTime<Utc> = DateTime::from_timestamp(after.div_euclid(1000), 0)?;
        let next = self.parsed.find_next_occurrence(&after, false).ok()?;
        Some(next.timestamp_millis()).filter(|next| *next > after.timestamp_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn next(text: &str, after: i64) -> Option<i64> {
        Cron::parse(text.to_owned()).unwrap().next(after)
    }

    #[test]
    fn the_next_time_is_strictly_later() {
        assert_eq!(next("0 * * * *", 0), Some(HOUR));
        assert_eq!(next("0 * * * *", HOUR - 1), Some(HOUR));
        assert_eq!(next("0 * * * *", HOUR), Some(2 * HOUR));
        assert_eq!(next("*/10 * * * * *", 1), Some(10_000));
    }

    #[test]
    fn weekdays_count_from_sunday_as_cron_does() {
        // 1970-01-01 was a Thursday.
        assert_eq!(next("0 0 * * 5", 0), Some(24 * HOUR));
        assert_eq!(next("0 0 * * FRI", 0), Some(24 * HOUR));
    }

    #[test]
    fn what_never_comes_is_none_and_what_is_no_expression_is_refused() {
        assert_eq!(next("0 0 30 2 *", 0), None);
        assert_eq!(next("0 * * * *", i64::MAX), None);
        for fault in ["", "* * *", "61 * * * *", "every day"] {
            assert!(Cron::parse(fault.to_owned()).is_err(), "{fault}");
        }
    }
}
