use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn options(query: &str) -> ClientOptions {
    let mut options =
        runtime().block_on(async { ClientOptions::parse(format!("mongodb://h/?{query}")).await }).unwrap();
    fill_in(&mut options, Duration::from_secs(5));
    options
}

#[test]
fn a_uri_that_says_nothing_gets_bounded_times_and_majority_writes() {
    let options = options("");
    assert_eq!(options.server_selection_timeout, Some(Duration::from_secs(4)));
    assert_eq!(options.connect_timeout, Some(Duration::from_secs(4)));
    assert_eq!(options.app_name.as_deref(), Some("app-host"));
    assert_eq!(options.max_pool_size, Some(POOL));
    let concern = options.write_concern.unwrap();
    assert_eq!((concern.w, concern.w_timeout), (Some(Acknowledgment::Majority), Some(Duration::from_secs(5))));
}

#[test]
fn what_the_uri_says_wins() {
    let options = options(
        "w=2&wtimeoutMS=7&journal=true&connectTimeoutMS=8&serverSelectionTimeoutMS=9&appName=x&maxPoolSize=3&\
         heartbeatFrequencyMS=600",
    );
    assert_eq!(options.server_selection_timeout, Some(Duration::from_millis(9)));
    assert_eq!(options.connect_timeout, Some(Duration::from_millis(8)));
    assert_eq!(options.heartbeat_freq, Some(Duration::from_millis(600)));
    assert_eq!((options.app_name.as_deref(), options.max_pool_size), (Some("x"), Some(3)));
    let concern = options.write_concern.unwrap();
    assert_eq!((concern.w, concern.w_timeout), (Some(Acknowledgment::Nodes(2)), Some(Duration::from_millis(7))));
    assert_eq!(concern.journal, Some(true));
}

#[test]
fn an_index_is_named_when_it_cannot_be_made() {
    let index = |kind: &str, paths: &[&str]| Index {
        kind: kind.to_owned(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    assert_eq!(model(&index("note", &["a.b", "c"])).unwrap().keys, doc! { "d.a.b": 1, "d.c": 1, "_id": 1 });
    for index in [index("$x", &["a"]), index("note", &["a..b"]), index("note", &["$a"])] {
        let Err(Fault::Invalid(text)) = model(&index) else { panic!("{index:?}") };
        assert!(text.contains(&format!("{:?}", index.kind)) && text.contains(&format!("{:?}", index.paths)), "{text}");
    }
}

#[test]
fn a_uri_that_cannot_be_used_is_a_fault_of_each_call_without_its_secret() {
    let runtime = runtime();
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
