//! Answers `a` on any path, and `a LENGTH` to a POST after it has read the body.

use app_abi::{App, Body, Host, Method, Request, Response, StartError};

struct Answer;

impl App for Answer {
    async fn start(_host: Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        if *request.method() != Method::POST {
            return Response::new("a".into());
        }
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, app_abi::Bytes::len);
        }
        Response::new(format!("a {length}").into())
    }
}

app_abi::export_app!(Answer);
