//! Records go through unchanged, whatever is in them.

use super::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_and_headers_come_out_as_they_went_in() {
    let scene = Scene::new("echo", 1).await;
    scene.configure("", "id = \"offset\"\nlimits = { output = \"4MiB\" }");
    let echo = ("pawl-fixture".to_owned(), Some(b"echo".to_vec()));
    let record = |key: Option<&[u8]>, value: Option<Vec<u8>>, headers: &[(&str, Option<&[u8]>)]| {
        let mut all = vec![echo.clone()];
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))));
        Record { key: key.map(<[u8]>::to_vec), value, headers: all }
    };
    let records = vec![
        record(None, None, &[]),
        record(Some(b""), Some(Vec::new()), &[("", Some(b""))]),
        record(Some(&[0xff, 0x00]), Some(vec![0x00, 0xff, 0xfe]), &[("binary", Some(&[0x80, 0x00])), ("null", None)]),
        record(Some("é".as_bytes()), Some("日本".into()), &[("twice", Some(b"1")), ("twice", Some(b"2"))]),
        record(Some(b"big"), Some((0..1_000_000u32).map(|n| (n % 251) as u8).collect()), &[]),
    ];
    scene.produce_records(records.clone()).await;
    let worker = scene.start();
    let mut echoed = scene.read(&scene.done, records.len());
    assert!(worker.stop().success());
    // Each event is named after its workflow and step.
    for (offset, event) in echoed.iter_mut().enumerate() {
        let (name, value) = event.headers.pop().unwrap();
        assert_eq!(name, "pawl-event", "{offset}");
        let value = String::from_utf8(value.unwrap()).unwrap();
        assert!(value.starts_with(&format!("r/{}-0-", scene.topic)) && value.ends_with(":0:0"), "{value}");
    }
    let order = |record: &Record| record.key.clone();
    let mut expected = records;
    expected.sort_by_key(order);
    echoed.sort_by_key(order);
    assert_eq!(echoed, expected);
}
