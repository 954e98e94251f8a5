//! Tests of what a drop, a command or a verdict makes of the state.

use super::*;
use std::time::Duration;

const PLUGIN: &str = "p";

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn route(name: &str, versions: &str) -> RouteSpec {
    let roll_back = RollBack { steps: 10, worse_by: Share::of(10.0).unwrap(), swaps: false };
    RouteSpec { name: name.to_owned(), plugin: PLUGIN.to_owned(), versions: versions.parse().unwrap(), roll_back }
}

/// A plugin on one route, and the time.
struct Scene {
    state: State,
    route: RouteSpec,
    now: u64,
}

impl Scene {
    fn new(versions: &str) -> Self {
        Scene { state: State::default(), route: route("r", versions), now: 0 }
    }

    fn routes(&self) -> Vec<RouteSpec> {
        vec![self.route.clone()]
    }

    fn drop_in(&mut self, name: &str) {
        self.now += 1;
        self.state.drop_in(&self.routes(), PLUGIN, digest(name), true, self.now);
    }

    fn use_version(&mut self, name: &str) {
        self.now += 1;
        self.state.put_in_use(&self.routes(), PLUGIN, digest(name), self.now);
    }

    fn roll_back(&mut self) -> bool {
        let routes = self.routes();
        self.state.roll_back_route(&routes, &routes[0], self.now).is_ok()
    }

    fn roll_back_plugin(&mut self) -> bool {
        self.state.roll_back_plugin(&self.routes(), PLUGIN, self.now).is_ok()
    }

    fn canary(&mut self, percent: f64) {
        let routes = self.routes();
        self.state.begin_canary(&routes, &routes[0], Share::of(percent).unwrap(), self.now);
    }

    fn fresh(&self) -> Option<Digest> {
        self.state.serving(&self.route).fresh()
    }

    fn newest(&self) -> Option<Digest> {
        self.state.plugins[PLUGIN].newest()
    }

    /// New and old, where both are compared.
    fn contest(&self) -> Option<(Digest, Digest)> {
        self.state.serving(&self.route).contest(self.route.roll_back.swaps)
    }

    fn pass(&mut self, new: &str, old: &str) {
        self.state.pass(&self.route, digest(new), digest(old));
    }

    fn reject(&mut self, new: &str, old: &str) -> bool {
        let routes = self.routes();
        self.state.reject(&routes, &routes[0], digest(new), digest(old), self.now)
    }
}

#[test]
fn a_plugin_goes_back_version_by_version_and_forward_again() {
    let mut scene = Scene::new("newest");
    for name in ["v1", "v2", "v3"] {
        scene.drop_in(name);
    }
    assert_eq!(scene.fresh(), Some(digest("v3")));
    assert!(scene.roll_back_plugin());
    assert_eq!(scene.fresh(), Some(digest("v2")));
    assert!(scene.roll_back_plugin());
    assert_eq!(scene.fresh(), Some(digest("v1")));
    assert!(!scene.roll_back_plugin());
    assert!(scene.state.plugins[PLUGIN].newest_is_chosen());
    // The same file once more is no news; another one is.
    scene.drop_in("v3");
    assert_eq!(scene.fresh(), Some(digest("v1")));
    scene.drop_in("v4");
    assert_eq!(scene.fresh(), Some(digest("v4")));
    // What was given up is not what was there before.
    assert!(scene.roll_back_plugin());
    assert_eq!(scene.fresh(), Some(digest("v1")));
    scene.use_version("v3");
    assert_eq!(scene.fresh(), Some(digest("v3")));
    assert!(scene.roll_back_plugin());
    assert_eq!(scene.fresh(), Some(digest("v1")));
}

#[test]
fn a_route_goes_back_alone_and_follows_the_next_drop() {
    let mut scene = Scene::new("newest");
    for name in ["v1", "v2", "v3"] {
        scene.drop_in(name);
    }
    assert!(scene.roll_back());
    assert_eq!((scene.fresh(), scene.newest()), (Some(digest("v2")), Some(digest("v3"))));
    assert!(scene.roll_back());
    assert_eq!(scene.fresh(), Some(digest("v1")));
    assert!(!scene.roll_back());
    assert_eq!(scene.fresh(), Some(digest("v1")));
    scene.drop_in("v4");
    assert_eq!(scene.fresh(), Some(digest("v4")));
    assert!(scene.roll_back());
    assert_eq!(scene.fresh(), Some(digest("v1")), "what the route ran before v4, not v3");
    scene.use_version("v3");
    assert_eq!(scene.fresh(), Some(digest("v3")));
}

#[test]
fn a_pinned_route_follows_nothing_but_commands() {
    let mut scene = Scene::new("newest");
    scene.drop_in("v1");
    scene.drop_in("v2");
    let routes = scene.routes();
    scene.state.set(&routes, &routes[0], &Versions::Pin(digest("v2").to_string()), 3);
    scene.drop_in("v3");
    scene.use_version("v1");
    let pinned = |scene: &Scene| scene.state.serving(&scene.route).policy;
    assert_eq!(pinned(&scene), Policy::Pin(Ok(digest("v2"))));
    assert!(scene.state.named(PLUGIN, &routes).contains(&digest("v2")));
    scene.use_version("v2");
    scene.use_version("v3");
    assert!(scene.roll_back());
    assert_eq!(pinned(&scene), Policy::Pin(Ok(digest("v1"))), "in use before v2");
    scene.state.unset(&routes, &routes[0], 4);
    assert_eq!(scene.fresh(), Some(digest("v3")));
}

#[test]
fn a_digest_is_found_by_its_beginning() {
    let mut scene = Scene::new("newest");
    // Sixteen hexadecimal digits: of seventeen versions two begin alike.
    for n in 0..17 {
        scene.drop_in(&format!("v{n}"));
    }
    let plugin = &scene.state.plugins[PLUGIN];
    let wanted = digest("v3");
    assert_eq!(plugin.find(PLUGIN, &wanted.to_string()[..12]).unwrap(), wanted);
    assert_eq!(plugin.find(PLUGIN, &wanted.to_string().to_uppercase()).unwrap(), wanted);
    let ambiguous = (0..16).filter_map(|digit| plugin.find(PLUGIN, &format!("{digit:x}")).err());
    assert!(ambiguous.into_iter().any(|e| e.to_string().contains("give more digits")));
    let unknown = plugin.find(PLUGIN, "0123456789abcdef").unwrap_err().to_string();
    assert!(unknown.contains("no version 0123456789abcdef") && unknown.contains(&wanted.short()), "{unknown}");
}

#[test]
fn a_canary_goes_beside_what_the_route_ran_before() {
    let mut scene = Scene::new("canary:5%");
    scene.drop_in("v1");
    assert_eq!(scene.contest(), None);
    scene.drop_in("v2");
    assert_eq!(scene.contest(), Some((digest("v2"), digest("v1"))));
    // Found to be no worse: the next one goes beside it.
    scene.pass("v2", "v1");
    scene.drop_in("v3");
    assert_eq!(scene.contest(), Some((digest("v3"), digest("v2"))));
    assert!(scene.reject("v3", "v2"));
    assert_eq!((scene.contest(), scene.fresh()), (None, Some(digest("v2"))));
    assert!(!scene.reject("v3", "v2"), "a verdict that comes late");
    scene.drop_in("v4");
    assert_eq!(scene.contest(), Some((digest("v4"), digest("v2"))));
    scene.use_version("v4");
    assert_eq!((scene.contest(), scene.fresh()), (None, Some(digest("v4"))));
    scene.drop_in("v5");
    assert!(scene.roll_back());
    assert_eq!(scene.state.serving(&scene.route).choose("x", None), Ok(digest("v4")));
    // By command again, although it was rolled back.
    scene.canary(50.0);
    assert_eq!(scene.contest(), Some((digest("v5"), digest("v4"))));
    assert!(scene.roll_back_plugin());
    assert_eq!((scene.contest(), scene.fresh()), (None, Some(digest("v4"))));
}

#[test]
fn a_canary_on_trial_is_not_what_the_others_run_when_the_next_version_is_dropped() {
    let mut scene = Scene::new("canary:5%");
    scene.drop_in("v1");
    scene.drop_in("v2");
    scene.pass("v2", "v0");
    scene.drop_in("v3");
    assert_eq!(scene.contest(), Some((digest("v3"), digest("v1"))));
    // Pinned for a while.
    let routes = scene.routes();
    scene.state.set(&routes, &routes[0], &Versions::Pin(digest("v2").to_string()), 3);
    scene.drop_in("v4");
    assert!(scene.state.named(PLUGIN, &routes).contains(&digest("v1")), "it runs again after that");
    scene.state.unset(&routes, &routes[0], 4);
    assert_eq!(scene.contest(), Some((digest("v4"), digest("v1"))));
    scene.pass("v4", "v1");
    scene.drop_in("v5");
    assert_eq!(scene.contest(), Some((digest("v5"), digest("v4"))));
    scene.use_version("v5");
    scene.drop_in("v6");
    assert_eq!(scene.contest(), Some((digest("v6"), digest("v5"))));
    // What all workflows ran was no trial.
    scene.canary(100.0);
    scene.route.versions = "canary:100%".parse().unwrap();
    scene.drop_in("v7");
    assert_eq!(scene.contest(), Some((digest("v7"), digest("v6"))));
    // As it was stored before verdicts were.
    scene.route.versions = "canary:5%".parse().unwrap();
    let mut stored = serde_json::to_value(&scene.state).unwrap();
    let route = stored["routes"]["r"].as_object_mut().unwrap();
    assert!(route.remove("passed").is_some() && route.remove("newest").is_some());
    scene.state = serde_json::from_value(stored).unwrap();
    scene.state.catch_up(&scene.routes(), 9);
    assert_eq!(scene.contest(), Some((digest("v7"), digest("v6"))));
    scene.drop_in("v8");
    assert_eq!(scene.contest(), Some((digest("v8"), digest("v6"))));
}

#[test]
fn what_is_of_the_plugin_that_a_route_had_before_is_not_run_beside_a_new_one() {
    let mut scene = Scene::new("canary:5%");
    scene.drop_in("v1");
    scene.drop_in("v2");
    scene.route.plugin = "q".to_owned();
    for name in ["w1", "w2"] {
        let routes = scene.routes();
        scene.state.catch_up(&routes, 5);
        scene.state.drop_in(&routes, "q", digest(name), true, 6);
    }
    assert_eq!(scene.contest(), Some((digest("w2"), digest("w1"))));
}

#[test]
fn a_route_catches_up_with_what_a_worker_noted_that_does_not_have_it() {
    let mut scene = Scene::new("canary:5%");
    let elsewhere = |scene: &mut Scene, name: &str| {
        scene.now += 1;
        scene.state.drop_in(&[], PLUGIN, digest(name), true, scene.now);
    };
    let catch_up = |scene: &mut Scene| scene.state.catch_up(&scene.routes(), scene.now);
    elsewhere(&mut scene, "v1");
    // The route is new: what was there before is nothing that it ran.
    catch_up(&mut scene);
    elsewhere(&mut scene, "v2");
    catch_up(&mut scene);
    scene.drop_in("v2");
    assert_eq!(scene.contest(), Some((digest("v2"), digest("v1"))));
    assert!(scene.reject("v2", "v1"));
    elsewhere(&mut scene, "v3");
    catch_up(&mut scene);
    assert_eq!(scene.contest(), Some((digest("v3"), digest("v1"))));
    scene.state.put_in_use(&[], PLUGIN, digest("v2"), scene.now);
    catch_up(&mut scene);
    assert_eq!((scene.contest(), scene.fresh()), (None, Some(digest("v2"))));
    let before = scene.state.clone();
    catch_up(&mut scene);
    assert_eq!(scene.state, before);
}

#[test]
fn a_canary_by_command_takes_the_one_in_use_before() {
    let mut scene = Scene::new("newest");
    scene.drop_in("v1");
    scene.canary(5.0);
    assert_eq!((scene.contest(), scene.fresh()), (None, Some(digest("v1"))));
    scene.drop_in("v2");
    assert_eq!(scene.contest(), Some((digest("v2"), digest("v1"))));
    scene.use_version("v2");
    assert_eq!(scene.contest(), None);
    scene.canary(10.0);
    assert_eq!(scene.contest(), Some((digest("v2"), digest("v1"))));
}

#[test]
fn any_new_version_is_compared_where_the_route_says_so() {
    let mut scene = Scene::new("newest");
    scene.route.roll_back.swaps = true;
    scene.drop_in("v1");
    scene.drop_in("v2");
    assert_eq!(scene.contest(), Some((digest("v2"), digest("v1"))));
    assert!(scene.reject("v2", "v1"));
    assert_eq!(scene.fresh(), Some(digest("v1")));
}

#[test]
fn what_a_command_set_holds_until_pawl_toml_says_something_else() {
    let mut scene = Scene::new("newest");
    scene.drop_in("v1");
    let routes = scene.routes();
    scene.state.set(&routes, &routes[0], &Versions::Begun, 2);
    let stored: State = serde_json::from_str(&serde_json::to_string(&scene.state).unwrap()).unwrap();
    assert_eq!(stored, scene.state);
    assert_eq!(stored.policy(&route("r", "newest")), Versions::Begun);
    assert_eq!(stored.policy(&route("r", "canary:5%")), "canary:5%".parse().unwrap());
    assert_eq!(stored.policy(&route("other", "newest")), Versions::Newest);
}

fn keeping(keep: usize, rest: u64) -> Keeping {
    Keeping { dir: None, keep, rest: Duration::from_millis(rest) }
}

#[test]
fn only_what_is_old_unnamed_and_rested_can_go() {
    let mut scene = Scene::new("newest");
    for n in 0..6 {
        scene.drop_in(&format!("v{n}"));
    }
    let prunable = |scene: &Scene, keeping: Keeping, now: u64| {
        scene.state.prunable(PLUGIN, &scene.routes(), &keeping, now).into_iter().collect::<BTreeSet<_>>()
    };
    let names = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<BTreeSet<_>>();
    assert_eq!(prunable(&scene, keeping(2, 0), 6), names(&["v0", "v1", "v2", "v3"]));
    assert_eq!(prunable(&scene, keeping(6, 0), 6), names(&[]));
    // v0 was left when v1 was dropped, at 2, and so on.
    assert_eq!(prunable(&scene, keeping(2, 3), 6), names(&["v0", "v1"]));
    let pinned = Versions::Pin(digest("v0").to_string());
    let routes = scene.routes();
    scene.state.set(&routes, &routes[0], &pinned, 7);
    assert_eq!(prunable(&scene, keeping(2, 0), 7), names(&["v1", "v2", "v3"]));
    scene.state.unset(&routes, &routes[0], 8);
    assert_eq!(prunable(&scene, keeping(2, 5), 12), names(&["v1", "v2", "v3"]), "v0 was left at 8");
    scene.state.forget(PLUGIN, digest("v3"));
    assert!(!scene.state.plugins[PLUGIN].kept.contains_key(&digest("v3")));
    scene.roll_back_plugin();
    scene.roll_back_plugin();
    assert_eq!(scene.newest(), Some(digest("v2")), "what is gone is not gone back to");
}

#[test]
fn a_canary_and_what_a_route_was_rolled_back_to_are_named() {
    let mut scene = Scene::new("canary:5%");
    for n in 0..4 {
        scene.drop_in(&format!("v{n}"));
    }
    assert_eq!(scene.state.named(PLUGIN, &scene.routes()), BTreeSet::from([digest("v3"), digest("v0")]));
    let mut scene = Scene::new("newest");
    scene.drop_in("v0");
    scene.drop_in("v1");
    scene.roll_back();
    assert_eq!(scene.state.named(PLUGIN, &scene.routes()), BTreeSet::from([digest("v1"), digest("v0")]));
    assert!(scene.state.prunable(PLUGIN, &scene.routes(), &keeping(0, 0), 100).is_empty());
}

#[test]
fn what_pawl_toml_pins_stays_while_a_command_says_something_else() {
    let mut scene = Scene::new("newest");
    scene.drop_in("v0");
    scene.drop_in("v1");
    scene.route.versions = Versions::Pin(digest("v0").short());
    let routes = scene.routes();
    scene.state.set(&routes, &routes[0], &Versions::Newest, 3);
    scene.drop_in("v2");
    assert_eq!(scene.state.prunable(PLUGIN, &routes, &keeping(0, 0), 100), [digest("v1")]);
}

#[test]
fn a_route_whose_version_is_gone_runs_the_newest() {
    let mut scene = Scene::new("newest");
    scene.drop_in("v0");
    scene.drop_in("v1");
    assert!(scene.roll_back());
    assert_eq!(scene.fresh(), Some(digest("v0")));
    scene.state.forget(PLUGIN, digest("v0"));
    assert_eq!(scene.fresh(), Some(digest("v1")));
}
