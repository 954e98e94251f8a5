//! `versions` and `roll-back` of a route: which version of its plugin a step runs, and when a new one is given up again.

use std::fmt;
use std::str::FromStr;

/// So many digits of a digest the log shows; fewer are no name for a version.
const SHORTEST_DIGEST: usize = 8;
/// All digits of a sha256.
const DIGEST: usize = 64;

/// Which version of the plugin the steps of a route run.
#[derive(Debug, Clone, PartialEq)]
pub enum Versions {
    /// `newest`: the one that was dropped, or put in use, last.
    Newest,
    /// `begun`: the one that was the newest when the workflow was dispatched.
    Begun,
    /// `pin:DIGEST`: this one. The text is how its digest begins, 8 to 64 hexadecimal digits.
    Pin(String),
    /// `canary:5%`: so many of the workflows run the newest, the others the one before it.
    Canary(Share),
}

/// More than nothing and at most everything, in percent.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

/// When a version that is new on a route is given up, and the route goes back to the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct RollBack {
    /// Both versions are compared once each has run so many steps. Default: 100.
    pub steps: u64,
    /// So many more of the new one's steps have to fail, in percentage points. Default: 10 %.
    pub worse_by: Share,
    /// Whether every new version is compared so, not only one in a canary. Default: false.
    pub swaps: bool,
}

impl Share {
    pub(super) const TENTH: Share = Share(10.0);

    /// `None` for what is no share.
    pub fn of(percent: f64) -> Option<Self> {
        (percent > 0.0 && percent <= 100.0).then_some(Share(percent))
    }

    /// From 0 to 100.
    pub fn percent(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        number
            .and_then(Share::of)
            .ok_or_else(|| "is no share above 0 and up to 100; write it like \"5%\" or \"0.5%\"".to_owned())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "newest" => Ok(Versions::Newest),
            None if text == "begun" => Ok(Versions::Begun),
            Some(("pin", digest)) => digest_begin(digest).map(Versions::Pin),
            Some(("canary", share)) => {
                share.parse().map(Versions::Canary).map_err(|e| format!("behind \"canary:\" {e}"))
            }
            _ => Err("is none of \"newest\", \"begun\", \"pin:DIGEST\" and \"canary:5%\"".to_owned()),
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Versions::Newest => f.write_str("newest"),
            Versions::Begun => f.write_str("begun"),
            Versions::Pin(digest) => write!(f, "pin:{digest}"),
            Versions::Canary(share) => write!(f, "canary:{share}"),
        }
    }
}

fn digest_begin(text: &str) -> Result<String, String> {
    let digits = text.len();
    if (SHORTEST_DIGEST..=DIGEST).contains(&digits) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "names no version: behind \"pin:\" come {SHORTEST_DIGEST} to {DIGEST} hexadecimal digits, as `pawl plugin versions` shows them"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_read() {
        for text in ["newest", "begun", "pin:0123abcd", "canary:5%", "canary:0.25%", "canary:100%"] {
            assert_eq!(text.parse::<Versions>().unwrap().to_string(), text);
        }
        assert_eq!("pin:0123ABCD".parse(), Ok(Versions::Pin("0123abcd".to_owned())));
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in
            ["", "new", "pin", "pin:", "pin:0123abc", "pin:0123abcx", "canary", "canary:", "canary:5", "newest:1"]
        {
            assert!(text.parse::<Versions>().is_err(), "{text}");
        }
        for text in ["canary:0%", "canary:-1%", "canary:100.1%", "canary:NaN%", "canary:inf%"] {
            assert!(text.parse::<Versions>().unwrap_err().contains("share"), "{text}");
        }
        assert!(format!("pin:{}", "0".repeat(65)).parse::<Versions>().is_err());
    }
}
