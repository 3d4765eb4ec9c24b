//! An app with a SQLite of its own, which opens the file that `app.config` names and keeps it open.

use app_abi::{App, Body, Host, Request, Response, StartError, serde_json};
use rusqlite::Connection;

struct Second;

impl App for Second {
    async fn start(host: Host) -> Result<Self, StartError> {
        let config: serde_json::Value = host.config()?;
        // So that the databank has its file.
        host.databank().increment("counter", "starts", "count", 1).await?;
        let connection = Connection::open(config["database"].as_str().unwrap_or_default()).map_err(StartError::new)?;
        connection.pragma_query_value(None, "schema_version", |_| Ok(())).map_err(StartError::new)?;
        std::mem::forget(connection);
        Ok(Self)
    }

    async fn call(&self, _: Request<Body>) -> Response<Body> {
        Response::new("second\n".into())
    }
}

app_abi::export_app!(Second);
