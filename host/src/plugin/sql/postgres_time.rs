//! PostgreSQL's dates, times and intervals as it writes them in the style ISO.

/// Days from 0000-03-01 of the proleptic Gregorian calendar to 2000-01-01, from which PostgreSQL counts.
const EPOCH_DAYS: i64 = 730_425;
const DAY_MICROS: i64 = 86_400_000_000;

/// Days since 2000-01-01.
pub(super) fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => {
            let (date, era) = civil(days.into());
            date + era
        }
    }
}

/// Microseconds since midnight.
pub(super) fn time(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { clock } else { format!("{clock}.{fraction:06}").trim_end_matches('0').to_owned() }
}

/// Seconds west of Greenwich.
pub(super) fn zone(west: i32) -> String {
    let sign = if west > 0 { '-' } else { '+' };
    let east = west.unsigned_abs();
    let parts = [east / 3600, east / 60 % 60, east % 60];
    let shown = if parts[2] != 0 {
        3
    } else if parts[1] != 0 {
        2
    } else {
        1
    };
    let parts: Vec<String> = parts[..shown].iter().map(|part| format!("{part:02}")).collect();
    format!("{sign}{}", parts.join(":"))
}

/// Microseconds since 2000-01-01.
pub(super) fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let (date, era) = civil(micros.div_euclid(DAY_MICROS));
            format!("{date} {}{zone}{era}", time(micros.rem_euclid(DAY_MICROS)))
        }
    }
}

pub(super) fn interval(months: i32, days: i32, micros: i64) -> String {
    let mut parts = Vec::new();
    let mut before_is_negative = false;
    let mut part = |count: i64, one: &str, many: &str| {
        if count != 0 {
            // A number after a negative one says that it is not.
            let plus = if before_is_negative && count > 0 { "+" } else { "" };
            parts.push(format!("{plus}{count} {}", if count == 1 { one } else { many }));
            before_is_negative = count < 0;
        }
    };
    part(i64::from(months / 12), "year", "years");
    part(i64::from(months % 12), "mon", "mons");
    part(i64::from(days), "day", "days");
    if micros != 0 || parts.is_empty() {
        let sign = if micros < 0 {
            "-"
        } else if before_is_negative {
            "+"
        } else {
            ""
        };
        let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
        let clock = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        parts.push(match fraction {
            0 => clock,
            fraction => format!("{clock}.{fraction:06}").trim_end_matches('0').to_owned(),
        });
    }
    parts.join(" ")
}

/// Year, month and day, and the mark of a year before the first.
fn civil(days: i64) -> (String, &'static str) {
    // The year begins in March here, so that the leap day is its last.
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    match year {
        1.. => (format!("{year:04}-{month:02}-{day:02}"), ""),
        // There is no year 0.
        _ => (format!("{:04}-{month:02}-{day:02}", 1 - year), " BC"),
    }
}
