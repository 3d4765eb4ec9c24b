//! An app in forty lines: it greets as it is configured, by the path that it was asked for.

use app_abi::serde::Deserialize;
use app_abi::{App, Body, Host, Request, Response, StartError};

/// What stands under `app.config` in `app-host.json`.
#[derive(Deserialize)]
#[serde(crate = "app_abi::serde", deny_unknown_fields)]
struct Config {
    greeting: String,
}

struct Hello {
    greeting: String,
}

impl App for Hello {
    async fn start(host: Host) -> Result<Self, StartError> {
        let Config { greeting } = host.config()?;
        Ok(Self { greeting })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let name = request.uri().path().trim_start_matches('/');
        Response::new(format!("{}, {}!\n", self.greeting, if name.is_empty() { "world" } else { name }).into())
    }
}

app_abi::export_app!(Hello);

#[cfg(test)]
mod tests {
    use super::*;
    use app_abi::serde_json::json;
    use app_abi::testing::{TestApp, block_on};

    #[test]
    fn whoever_asks_is_greeted_by_the_path() {
        block_on(async {
            let app = TestApp::<Hello>::start(json!({ "greeting": "Hello" })).await.expect("it starts");
            for (path, greeting) in [("/", "Hello, world!\n"), ("/Ada", "Hello, Ada!\n")] {
                let response = app.call(Request::get(path).body(Body::empty()).expect("a request")).await;
                assert_eq!(response.into_body().bytes(100).await.expect("a body"), greeting);
            }
        });
    }
}
