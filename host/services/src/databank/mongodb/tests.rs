//! The driver without a server.

use super::*;

#[test]
fn a_uri_that_cannot_be_used_is_a_fault_of_each_call_without_its_secret() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for uri in [
        "nonsense",
        "hunter2",
        "mongodb://u:hunter2@",
        "mongodb://u:hunt/er2@h/",
        "mongodb://u:hunter2/@127.0.0.1:x",
        "mongodb://u:hunter2-%zz@127.0.0.1",
        "mongodb+hunter2://h",
        "mongodb://u:hunter2@h:x/?hunter=2",
        "mongodb://u:hunter2@h/?w=0",
    ] {
        let mongodb = Mongodb::new(uri, "d", &[], Duration::from_secs(1));
        for answer in [
            runtime.block_on(mongodb.prepare()),
            runtime.block_on(mongodb.remove(Key::new("note", "x").unwrap())),
            runtime.block_on(mongodb.search(Query::new("note", &[], &[], 0, None).unwrap()).next()).unwrap().map(drop),
        ] {
            let Err(Fault::Unavailable(text)) = answer else { panic!("{uri}: {answer:?}") };
            assert!(text.starts_with("databank.uri can't be used: ") && !text.contains("hunt"), "{text}");
        }
    }
}
