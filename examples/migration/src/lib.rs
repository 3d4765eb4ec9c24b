//! A version that changes what is stored: a note has an author and a text, where it was one text before
//! (`examples/before.rs`). The old code would misread the new notes, so the two must never run side by side: this is epoch
//! 2. A restart into it is refused as `incompatibility`; the operator stops the service and starts it again.
//!
//! The service's first worker starts alone, so the migration in its start runs against no other. Done again it does nothing.

use app_abi::serde::{Deserialize, Serialize};
use app_abi::serde_json::Value;
use app_abi::{App, Body, DatabankError, Host, Level, Method, Request, Response, StartError, StatusCode};

#[derive(Serialize, Deserialize)]
#[serde(crate = "app_abi::serde")]
struct Note {
    author: String,
    text: String,
}

impl Note {
    /// Of a text such as `Ada: buy milk`.
    fn of(text: &str) -> Self {
        let (author, text) = text.split_once(": ").unwrap_or(("unknown", text));
        Self { author: author.to_owned(), text: text.to_owned() }
    }
}

struct Notes(Host);

impl App for Notes {
    async fn start(host: Host) -> Result<Self, StartError> {
        migrate(&host).await.map_err(|error| StartError::new(error.to_string()))?;
        Ok(Self(host))
    }

    /// `POST /ID` with `AUTHOR: TEXT` makes a note, `GET /ID` shows it.
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let databank = self.0.databank();
        let id = request.uri().path().trim_start_matches('/').to_owned();
        if request.method() == Method::POST {
            let Ok(text) = request.into_body().bytes(4096).await else { return answer(StatusCode::BAD_REQUEST, "") };
            return match databank.create("note", &id, &Note::of(&String::from_utf8_lossy(&text))).await {
                Ok(_) => answer(StatusCode::CREATED, "made"),
                Err(error) => answer(StatusCode::CONFLICT, &error.to_string()),
            };
        }
        match databank.read::<Note>("note", &id).await {
            Ok(note) => answer(StatusCode::OK, &format!("{} by {}", note.value.text, note.value.author)),
            Err(error) => answer(StatusCode::NOT_FOUND, &error.to_string()),
        }
    }
}

/// Rewrites every note that has no author yet.
async fn migrate(host: &Host) -> Result<(), DatabankError> {
    let databank = host.databank();
    let mut notes = databank.scan::<Value>("note");
    let mut changed = 0;
    while let Some(note) = notes.next().await {
        let note = note?;
        if note.value.get("author").is_none() {
            let new = Note::of(note.value["text"].as_str().unwrap_or_default());
            databank.compare_and_save("note", &note.id, note.revision, &new).await?;
            changed += 1;
        }
    }
    if changed > 0 {
        host.log_with(Level::Info, "notes migrated", &[("changed", &changed.to_string())]);
    }
    Ok(())
}

fn answer(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(format!("{text}\n").into());
    *response.status_mut() = status;
    response
}

app_abi::export_app!(Notes, epoch = 2);
