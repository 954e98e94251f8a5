//! Which version of its plugin a step of a route runs.

use crate::config::Share;
use crate::plugin::Digest;

/// How a route chooses.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    Newest,
    Begun,
    /// Or why there is no such version.
    Pin(Result<Digest, String>),
    Canary(Share),
}

/// What a route chooses from, as of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    pub policy: Policy,
    /// The newest version of the plugin, if there is one.
    pub newest: Option<Digest>,
    /// What the route ran before the newest.
    pub stable: Option<Digest>,
    /// Whether the route went back from the newest to that.
    pub rolled_back: bool,
}

/// Why there is no version for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChoice {
    /// There is no version of the plugin yet.
    Absent,
    /// The one that is asked for is not known.
    Unknown(String),
}

impl Serving {
    /// The version that a new workflow would begin with, canaries aside.
    pub fn fresh(&self) -> Option<Digest> {
        if self.rolled_back { self.stable } else { self.newest }
    }

    /// The version that steps run because of the policy; in a canary, beside the newest.
    pub fn named(&self) -> Option<Digest> {
        match &self.policy {
            Policy::Pin(pinned) => pinned.as_ref().ok().copied(),
            Policy::Canary(_) => self.stable,
            Policy::Newest | Policy::Begun => self.fresh(),
        }
    }

    /// The version that a step of the workflow runs; `begun` is the digest that the workflow was dispatched with, if one was noted.
    pub fn choose(&self, workflow: &str, begun: Option<&str>) -> Result<Digest, NoChoice> {
        let chosen = match &self.policy {
            Policy::Newest => self.fresh(),
            Policy::Begun => begun.and_then(Digest::parse).or(self.fresh()),
            Policy::Pin(pinned) => return pinned.clone().map_err(NoChoice::Unknown),
            Policy::Canary(_) if self.rolled_back => self.stable,
            Policy::Canary(share) => match self.stable {
                Some(stable) if !is_in_share(workflow, *share) => Some(stable),
                _ => self.newest,
            },
        };
        chosen.ok_or(NoChoice::Absent)
    }

    /// The new version on the route and the one that it is compared with, while both serve or the one has just replaced the other.
    pub fn contest(&self, swaps: bool) -> Option<(Digest, Digest)> {
        let contested = match self.policy {
            Policy::Canary(_) => true,
            Policy::Newest | Policy::Begun => swaps,
            Policy::Pin(_) => false,
        };
        let (newest, stable) = (self.newest?, self.stable?);
        (contested && !self.rolled_back && newest != stable).then_some((newest, stable))
    }
}

/// The same for a workflow in every process and at every time; a larger share holds all workflows of a smaller one.
fn is_in_share(workflow: &str, share: Share) -> bool {
    let hash = Digest::of(workflow.as_bytes());
    let place = hash.as_bytes().iter().take(8).fold(0u64, |place, byte| place << 8 | u64::from(*byte));
    (place as f64) < share.percent() / 100.0 * 2f64.powi(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn serving(policy: Policy) -> Serving {
        Serving { policy, newest: Some(digest("new")), stable: Some(digest("old")), rolled_back: false }
    }

    fn canary(percent: f64) -> Serving {
        serving(Policy::Canary(Share::of(percent).unwrap()))
    }

    fn on_newest(serving: &Serving) -> Vec<String> {
        let ids = (0..20_000).map(|n| format!("records/rec-{n}"));
        ids.filter(|id| serving.choose(id, None) == Ok(digest("new"))).collect()
    }

    #[test]
    fn a_canary_takes_its_share_of_the_workflows_and_keeps_them() {
        for (percent, fewest, most) in [(0.5, 60, 140), (5.0, 880, 1120), (50.0, 9_700, 10_300)] {
            let chosen = on_newest(&canary(percent));
            assert!((fewest..=most).contains(&chosen.len()), "{percent} %: {} of 20000", chosen.len());
            assert_eq!(chosen, on_newest(&canary(percent)), "another look, another choice");
            let more = canary(percent * 1.5);
            assert!(
                chosen.iter().all(|id| more.choose(id, None) == Ok(digest("new"))),
                "a larger share holds the smaller"
            );
        }
        assert_eq!(on_newest(&canary(100.0)).len(), 20_000);
        // What was chosen before a release of Pawl must be chosen after it.
        assert!(
            is_in_share("records/rec-7", Share::of(50.0).unwrap())
                == on_newest(&canary(50.0)).contains(&"records/rec-7".into())
        );
    }

    #[test]
    fn a_canary_that_was_rolled_back_or_has_nothing_to_go_beside_runs_one_version() {
        let back = Serving { rolled_back: true, ..canary(50.0) };
        assert!(on_newest(&back).is_empty());
        assert_eq!(back.choose("a", None), Ok(digest("old")));
        let alone = Serving { stable: None, ..canary(50.0) };
        assert_eq!(on_newest(&alone).len(), 20_000);
    }

    #[test]
    fn the_version_that_a_workflow_began_with_counts_where_the_route_says_so() {
        let held = digest("oldest").to_string();
        assert_eq!(serving(Policy::Begun).choose("a", Some(&held)), Ok(digest("oldest")));
        assert_eq!(serving(Policy::Begun).choose("a", None), Ok(digest("new")));
        assert_eq!(serving(Policy::Newest).choose("a", Some(&held)), Ok(digest("new")));
        let back = Serving { rolled_back: true, ..serving(Policy::Begun) };
        assert_eq!(back.choose("a", Some(&held)), Ok(digest("oldest")));
        assert_eq!(back.choose("a", None), Ok(digest("old")));
        let pinned = serving(Policy::Pin(Ok(digest("old"))));
        assert_eq!(pinned.choose("a", Some(&held)), Ok(digest("old")));
        let lost = serving(Policy::Pin(Err("gone".to_owned())));
        assert_eq!(lost.choose("a", None), Err(NoChoice::Unknown("gone".to_owned())));
        let none = Serving { newest: None, stable: None, ..serving(Policy::Newest) };
        assert_eq!(none.choose("a", None), Err(NoChoice::Absent));
    }

    #[test]
    fn only_what_is_new_and_in_use_is_compared() {
        let both = Some((digest("new"), digest("old")));
        assert_eq!(canary(5.0).contest(false), both);
        assert_eq!(serving(Policy::Newest).contest(false), None);
        assert_eq!(serving(Policy::Newest).contest(true), both);
        assert_eq!(serving(Policy::Pin(Ok(digest("new")))).contest(true), None);
        assert_eq!(Serving { rolled_back: true, ..canary(5.0) }.contest(true), None);
        assert_eq!(Serving { stable: Some(digest("new")), ..canary(5.0) }.contest(true), None);
    }
}
