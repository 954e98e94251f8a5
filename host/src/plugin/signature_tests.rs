//! A folder whose files must be signed: what is accepted when, and what goes on serving.

use super::signature::tests::Signer;
use super::testing::Logs;
use super::watch_tests::{Folder, a, b, replace};
use super::{Digest, TrustedKeys};
use std::fs;
use std::path::Path;

/// A folder that trusts the signer, with `a` signed in it.
async fn signed(signer: &Signer) -> Folder {
    let keys = TrustedKeys::new(&[signer.key()]);
    let folder = Folder::open_trusting(keys, |dir| {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("p.wasm"), a()).unwrap();
        fs::write(dir.join("p.wasm.minisig"), signer.sign(&a())).unwrap();
    })
    .await;
    folder.uses("p", &a()).await;
    folder
}

fn write(folder: &Folder, file: &str, bytes: impl AsRef<[u8]>) {
    replace(&folder.path(file), bytes.as_ref());
}

#[tokio::test]
async fn an_unsigned_file_waits_for_its_signature() {
    let (logs, signer) = (Logs::capture(), Signer::new());
    let folder = Folder::open_trusting(TrustedKeys::new(&[signer.key()]), |dir: &Path| {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("p.wasm"), a()).unwrap();
    })
    .await;
    folder.refuses("p", "is not signed").await;
    assert_eq!(folder.digest("p"), None);
    assert!(folder.is_unmoved().await);
    write(&folder, "p.wasm.minisig", signer.sign(&a()));
    folder.uses("p", &a()).await;
    assert_eq!(folder.registry.status()[0].refused, None);
    let path = folder.path("p.wasm");
    folder.watch.shutdown().await;
    assert_eq!(
        logs.messages("pawl::registry")[0],
        format!(
            "plugin p: {} refused: is not signed, and `trusted-keys` of [plugins] in pawl.toml asks for it: sign it (`minisign -S \
             -m p.wasm`) and put p.wasm.minisig beside it; its routes wait",
            path.display()
        )
    );
}

/// However long the second of the two takes, the version before goes on until then.
#[tokio::test]
async fn file_and_signature_may_come_in_any_order() {
    let signer = Signer::new();
    let folder = signed(&signer).await;
    write(&folder, "p.wasm", b());
    folder.watch.look().await;
    folder.refuses("p", "is not what p.wasm.minisig signs").await;
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    write(&folder, "p.wasm.minisig", signer.sign(&b()));
    folder.uses("p", &b()).await;

    write(&folder, "p.wasm.minisig", signer.sign(&a()));
    folder.watch.look().await;
    folder.refuses("p", "is not what p.wasm.minisig signs").await;
    assert_eq!(folder.digest("p"), Some(Digest::of(&b())));
    write(&folder, "p.wasm", a());
    folder.uses("p", &a()).await;
    assert_eq!(folder.registry.status()[0].refused, None);
    folder.watch.shutdown().await;
}

#[tokio::test]
async fn a_signature_that_follows_soon_is_no_reason_to_complain() {
    let (logs, signer) = (Logs::capture(), Signer::new());
    let folder = signed(&signer).await;
    write(&folder, "p.wasm", b());
    write(&folder, "p.wasm.minisig", signer.sign(&b()));
    folder.uses("p", &b()).await;
    folder.watch.shutdown().await;
    assert!(logs.messages("pawl::registry").iter().all(|line| !line.contains("refused")));
}

#[tokio::test]
async fn what_others_signed_is_refused_and_the_version_before_stays() {
    let (logs, signer, other) = (Logs::capture(), Signer::new(), Signer::new());
    let folder = signed(&signer).await;
    write(&folder, "p.wasm", b());
    write(&folder, "p.wasm.minisig", other.sign(&b()));
    folder.refuses("p", "a key that is none of `trusted-keys`").await;
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    // Another build with the same fault is told too.
    write(&folder, "p.wasm", [a(), b"\0\x02\x01x".to_vec()].concat());
    folder.watch.look().await;
    folder.watch.shutdown().await;
    let refused = logs.messages("pawl::registry").into_iter().filter(|line| line.contains("refused"));
    assert_eq!(refused.filter(|line| line.ends_with("stays in use")).count(), 2);
}

#[tokio::test]
async fn the_version_in_use_without_its_signature_is_told() {
    let signer = Signer::new();
    let folder = signed(&signer).await;
    fs::remove_file(folder.path("p.wasm.minisig")).unwrap();
    folder.refuses("p", "is not signed").await;
    assert_eq!(folder.digest("p"), Some(Digest::of(&a())));
    write(&folder, "p.wasm.minisig", signer.sign(&a()));
    folder.until(|| folder.registry.status()[0].refused.is_none()).await;
    folder.watch.shutdown().await;
}

/// Where no keys are configured, what lies beside a file does not matter.
#[tokio::test]
async fn without_keys_a_signature_does_nothing() {
    let folder = Folder::open_trusting(TrustedKeys::default(), |dir: &Path| {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("p.wasm"), a()).unwrap();
        fs::write(dir.join("p.wasm.minisig"), "nonsense").unwrap();
    })
    .await;
    folder.uses("p", &a()).await;
    assert_eq!(folder.registry.status().len(), 1);
    folder.watch.shutdown().await;
}
