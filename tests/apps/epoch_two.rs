//! An app that its developer doesn't want to run beside the epoch before.

use app_abi::{App, Body, Host, Request, Response, StartError};

struct Two;

impl App for Two {
    async fn start(_: Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn call(&self, _: Request<Body>) -> Response<Body> {
        Response::new(Body::from("two"))
    }
}

app_abi::export_app!(Two, epoch = 2);
