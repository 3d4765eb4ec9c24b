//! The databank across the line, with the driver that needs no store.

use app_abi::serde_json::{Value, json};
use app_abi::{Databank, DatabankError, Document, Order};

use super::*;

struct Keeper(Host);

impl App for Keeper {
    async fn start(host: Host) -> Result<Self, StartError> {
        Ok(Self(host))
    }

    async fn call(&self, _: Request<AppSideBody>) -> Response<AppSideBody> {
        Response::new(tour(self.0.databank()).await.into())
    }
}

/// Each way across the line once, and what came of it, a line each.
async fn tour(databank: Databank) -> String {
    let made = databank.create("note", "a", &json!({"n": 1, "l": []})).await;
    let again = databank.create("note", "a", &json!({})).await.map(|_| ());
    let summed = databank.increment("note", "a", "n", 41).await;
    let grown = databank.append("note", "a", "l", &"x").await.map(|_| ());
    let stale = databank.compare_and_save("note", "a", made.clone().unwrap(), &json!({})).await.map(|_| ());
    let read = databank.read::<Value>("note", "a").await.map(|note| note.value);
    let typed = databank.read::<Vec<u8>>("note", "a").await.map(|note| note.value);
    let saved = databank.save("note", "b", &json!({"n": 7})).await.map(|_| ());
    let updated = databank.update("note", "c", &json!({})).await.map(|_| ());
    let ids = |found: Result<Vec<Document<Value>>, DatabankError>| {
        found.map(|found| found.into_iter().map(|note| note.id).collect::<Vec<_>>())
    };
    let found = ids(databank.search("note").equals("n", 7).run().collect().await);
    let sorted = ids(databank.search("note").sort("n", Order::Ascending).skip(1).limit(1).run().collect().await);
    let all = ids(databank.scan("note").collect().await);
    let some = ids(databank.read_many("note", &["b", "x", "a"]).await);
    let wrong = ids(databank.search("no kind").run().collect().await);
    let removed = databank.remove("note", "b").await;
    let gone = databank.remove("note", "b").await;
    format!(
        "{}\n{again:?}\n{summed:?} {grown:?}\n{stale:?}\n{read:?}\n{typed:?}\n{saved:?} {updated:?}\n\
         {found:?} {sorted:?} {all:?} {some:?}\n{wrong:?}\n{removed:?} {gone:?}",
        made.is_ok()
    )
}

#[tokio::test]
async fn every_call_of_the_databank_crosses_the_line() {
    static HEADER: LibHeader = export::header::<Keeper, export::Plain>();
    let library = check(&HEADER).expect("an app of this very build fits");
    let app = library.start(info("")).await.expect("the app starts");
    let text = text(app.call(get("/"), connection(), Offers::default()).await.unwrap()).await;
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "true",
        "Err(AlreadyExists(\"note/a is there already\"))",
        "Ok(42) Ok(())",
        "Err(Conflict(\"note/a has another revision by now\"))",
        "Ok(Object {\"l\": Array [String(\"x\")], \"n\": Number(42)})",
        "Err(Invalid(\"note/a is not what the app expects: invalid type: map, expected a sequence at line 1 column 0\"))",
        "Ok(()) Err(NotFound(\"note/c is not there\"))",
        "Ok([\"b\"]) Ok([\"a\"]) Ok([\"a\", \"b\"]) Ok([\"b\", \"a\"])",
    ];
    assert_eq!(lines[..8], expected);
    assert!(lines[8].starts_with("Err(Invalid("), "{}", lines[8]);
    assert_eq!(lines[9], "Ok(()) Err(NotFound(\"note/b is not there\"))");
}
