//! Tests of the folder: what is stored is read again, whole or not at all, whoever else writes there.

use super::*;
use crate::plugin::signature::tests::Signer;
use tempfile::TempDir;

fn keeping(dir: &Path) -> Keeping {
    Keeping { dir: Some(dir.to_owned()), keep: 5, rest: Duration::ZERO }
}

fn shelf() -> (Shelf, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Shelf::open(&keeping(&dir.path().join("versions"))), dir)
}

fn dropped(content: &str) -> Dropped {
    Dropped { bytes: content.into(), signature: None }
}

fn load(shelf: &Shelf, content: &str) -> Result<Vec<u8>, String> {
    shelf.load("p", Digest::of(content.as_bytes()), &TrustedKeys::default())
}

fn drop_in(shelf: &Shelf, content: &str) {
    let digest = Digest::of(content.as_bytes());
    assert!(shelf.keep("p", digest, &dropped(content)).unwrap());
    shelf.update(State::default(), |state| state.drop_in(&[], "p", digest, true, 1)).unwrap();
}

#[test]
fn components_and_state_are_there_after_a_restart() {
    let (shelf, dir) = shelf();
    drop_in(&shelf, "v1");
    drop_in(&shelf, "v2");
    let again = Shelf::open(&keeping(&dir.path().join("versions")));
    let (state, stamp) = again.read().unwrap();
    assert_eq!(state.plugins["p"].newest(), Some(Digest::of(b"v2")));
    assert_eq!(state.plugins["p"].kept.len(), 2);
    assert_eq!(load(&again, "v1"), Ok(b"v1".to_vec()));
    assert_eq!(stamp, shelf.stamp());
    // What another one writes shows, what changes nothing does not.
    again.update(State::default(), |_| ()).unwrap();
    assert_eq!(stamp, shelf.stamp());
    drop_in(&again, "v3");
    assert_ne!(stamp, shelf.stamp());
}

#[test]
fn a_change_is_made_to_what_is_stored_not_to_what_was_read() {
    let (shelf, _dir) = shelf();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let shelf = shelf.clone();
            scope.spawn(move || drop_in(&shelf, &format!("v{n}")));
        }
    });
    assert_eq!(shelf.read().unwrap().0.plugins["p"].kept.len(), 8);
}

#[test]
fn what_is_gone_or_damaged_says_so() {
    let (shelf, dir) = shelf();
    drop_in(&shelf, "v1");
    let digest = Digest::of(b"v1");
    let path = dir.path().join("versions/p").join(format!("{digest}.wasm"));
    fs::write(&path, "v?").unwrap();
    assert!(load(&shelf, "v1").unwrap_err().contains("is damaged"));
    assert!(shelf.keep("p", digest, &dropped("v1")).unwrap());
    assert!(load(&shelf, "v1").is_ok(), "of the same length, and taken for it");
    shelf.remove("p", digest).unwrap();
    assert!(load(&shelf, "v1").unwrap_err().contains("is gone"));
    shelf.remove("p", digest).unwrap();
    assert!(shelf.keep("p", digest, &dropped("v1")).unwrap());
    assert!(load(&shelf, "v1").is_ok());
}

#[test]
fn a_key_that_is_not_trusted_any_more_signs_nothing_that_is_kept() {
    let (shelf, dir) = shelf();
    let (ours, theirs) = (Signer::new(), Signer::new());
    let load = |keys: &[&Signer]| {
        let keys: Vec<_> = keys.iter().map(|signer| signer.key()).collect();
        shelf.load("p", Digest::of(b"v1"), &TrustedKeys::new(&keys))
    };
    drop_in(&shelf, "v1");
    assert_eq!(load(&[]), Ok(b"v1".to_vec()));
    assert!(load(&[&ours]).unwrap_err().contains("is not signed"));
    let signed = Dropped { signature: Some(ours.sign(b"v1").into()), ..dropped("v1") };
    assert!(shelf.keep("p", Digest::of(b"v1"), &signed).unwrap());
    assert_eq!(load(&[&theirs, &ours]), Ok(b"v1".to_vec()));
    assert!(load(&[&theirs]).unwrap_err().contains("none of `trusted-keys`"));
    shelf.remove("p", Digest::of(b"v1")).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("versions/p")).unwrap().count(), 0);
}

#[test]
fn a_damaged_state_costs_the_settings_not_the_versions() {
    let (shelf, dir) = shelf();
    drop_in(&shelf, "v1");
    fs::write(dir.path().join("versions/state.json"), "{\"plugins\": 7").unwrap();
    let (state, stamp) = shelf.read().unwrap();
    assert_eq!(fs::read(dir.path().join("versions/state.json.damaged")).unwrap(), b"{\"plugins\": 7");
    assert_eq!((&state, stamp), (&shelf.read().unwrap().0, shelf.stamp()), "read once more, and none of it is lost");
    assert!(state.plugins["p"].kept.contains_key(&Digest::of(b"v1")));
    assert_eq!(state.plugins["p"].newest(), None);
    drop_in(&shelf, "v2");
    assert_eq!(shelf.read().unwrap().0.plugins["p"].kept.len(), 2);
}

#[test]
fn a_state_that_cannot_be_read_now_is_no_damaged_one() {
    let (shelf, dir) = shelf();
    drop_in(&shelf, "v1");
    let (state, aside) = (dir.path().join("versions/state.json"), dir.path().join("aside"));
    let before = shelf.read().unwrap().0;
    fs::rename(&state, &aside).unwrap();
    // Of a folder nobody reads a file's content.
    fs::create_dir(&state).unwrap();
    assert!(shelf.read().is_err());
    assert!(shelf.update(State::default(), |state| state.drop_in(&[], "p", Digest::of(b"v2"), true, 1)).is_err());
    fs::remove_dir(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    assert_eq!(shelf.read().unwrap().0, before);
}

#[test]
fn a_folder_that_cannot_be_had_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let shelf = Shelf::open(&keeping(&file.join("versions")));
    assert!(!shelf.keeps() && !shelf.keep("p", Digest::of(b"v1"), &dropped("v1")).unwrap());
    let updated = shelf.update(State::default(), |state| state.drop_in(&[], "p", Digest::of(b"v1"), false, 1)).unwrap();
    assert_eq!(updated.after.plugins["p"].newest(), Some(Digest::of(b"v1")));
}
