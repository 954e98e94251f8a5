//! Which dead letters are meant.

use super::letter::{Letter, Place};
use crate::workflow::workflow_id::is_of;

/// Those that are all of this; nothing said, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this message id, in any generation, or of this workflow.
    pub id: Option<String>,
    /// A part of the reason.
    pub reason: Option<String>,
    /// Not older, milliseconds since the Unix epoch.
    pub since: Option<u64>,
    /// Of this plugin.
    pub plugin: Option<OfPlugin>,
    /// Of this route.
    pub route: Option<String>,
    /// The one that lies here.
    pub place: Option<Place>,
}

/// How a plugin is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfPlugin {
    /// By the routes that name it.
    Routes(Vec<String>),
    /// By the beginning of its digest.
    Digest(String),
}

impl Filter {
    /// Whether a letter is meant.
    pub fn matches(&self, letter: &Letter) -> bool {
        let workflow = letter.workflow.as_deref().unwrap_or_default();
        let of_plugin = |plugin: &OfPlugin| match plugin {
            OfPlugin::Routes(routes) => letter.route.as_ref().is_some_and(|route| routes.contains(route)),
            OfPlugin::Digest(begin) => letter.plugin_digest.as_ref().is_some_and(|digest| digest.starts_with(begin)),
        };
        self.id.as_ref().is_none_or(|id| id == workflow || is_of(workflow, id))
            && self.reason.as_ref().is_none_or(|part| letter.reason.as_ref().is_some_and(|whole| whole.contains(part)))
            && self.since.is_none_or(|since| letter.message.timestamp.is_some_and(|timestamp| timestamp >= since))
            && self.plugin.as_ref().is_none_or(of_plugin)
            && self.route.as_ref().is_none_or(|route| letter.route.as_ref() == Some(route))
            && self.place.as_ref().is_none_or(|place| *place == letter.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::contract::{Bytes, Header, Message};

    fn letter(headers: &[(&str, &str)]) -> Letter {
        let header =
            |(name, value): &(&str, &str)| Header { name: (*name).into(), value: Some(Bytes((*value).into())) };
        let headers = headers.iter().map(header).collect();
        let (key, value) = (None, None);
        Letter::new(Message { topic: "d".into(), partition: 0, offset: 3, timestamp: Some(1000), key, value, headers })
    }

    #[test]
    fn a_letter_is_meant_if_everything_fits() {
        let dead = letter(&[
            ("pawl-route", "r"),
            ("pawl-workflow", "r/a%2E0:r1"),
            ("pawl-reason", "no such table"),
            ("pawl-plugin-digest", "abcd"),
        ]);
        let foreign = letter(&[]);
        let some = |text: &str| Some(text.to_owned());
        let one = Filter::default;
        assert!(one().matches(&dead) && one().matches(&foreign));
        let fitting = [
            Filter { id: some("a.0"), ..one() },
            Filter { id: some("r/a%2E0:r1"), ..one() },
            Filter { reason: some("such"), ..one() },
            Filter { plugin: Some(OfPlugin::Digest("ab".into())), ..one() },
            Filter { plugin: Some(OfPlugin::Routes(vec!["q".into(), "r".into()])), ..one() },
            Filter { route: some("r"), ..one() },
            Filter { route: some("r"), reason: some("table"), since: Some(1000), ..one() },
        ];
        let others = [
            Filter { id: some("a"), ..one() },
            Filter { id: some("r/a%2E0"), ..one() },
            Filter { reason: some("Such"), ..one() },
            Filter { since: Some(1001), ..one() },
            Filter { plugin: Some(OfPlugin::Digest("bc".into())), ..one() },
            Filter { plugin: Some(OfPlugin::Routes(vec!["q".into()])), ..one() },
            Filter { route: some("q"), ..one() },
            Filter { route: some("r"), reason: some("chair"), ..one() },
            Filter { place: Some(Place { topic: "d".into(), partition: 0, offset: 4 }), ..one() },
        ];
        for filter in fitting {
            assert!(filter.matches(&dead) && !filter.matches(&foreign), "{filter:?}");
        }
        for filter in others {
            assert!(!filter.matches(&dead), "{filter:?}");
        }
        assert!(Filter { place: Some(dead.place()), ..one() }.matches(&dead));
    }
}
