//! The version before: a note is one text, with its author in it. Epoch 1.

use app_abi::serde_json::{Value, json};
use app_abi::{App, Body, Host, Method, Request, Response, StartError, StatusCode};

struct Notes(Host);

impl App for Notes {
    async fn start(host: Host) -> Result<Self, StartError> {
        Ok(Self(host))
    }

    /// `POST /ID` with a text makes a note, `GET /ID` shows it.
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let databank = self.0.databank();
        let id = request.uri().path().trim_start_matches('/').to_owned();
        if request.method() == Method::POST {
            let Ok(text) = request.into_body().bytes(4096).await else { return answer(StatusCode::BAD_REQUEST, "") };
            let note = json!({ "text": String::from_utf8_lossy(&text) });
            return match databank.create("note", &id, &note).await {
                Ok(_) => answer(StatusCode::CREATED, "made"),
                Err(error) => answer(StatusCode::CONFLICT, &error.to_string()),
            };
        }
        match databank.read::<Value>("note", &id).await {
            Ok(note) => answer(StatusCode::OK, note.value["text"].as_str().unwrap_or_default()),
            Err(error) => answer(StatusCode::NOT_FOUND, &error.to_string()),
        }
    }
}

fn answer(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(format!("{text}\n").into());
    *response.status_mut() = status;
    response
}

app_abi::export_app!(Notes);
