//! The greeter of tonic's tutorial, one call and one stream in both directions: `greeter.proto`.
//!
//! `tonic-prost-build` would generate from that file what stands here by hand in short, the messages and the service, and
//! needs `protoc`, which nobody shall have to install for an example. An app of yours has the trait and the server that it
//! generates, and ends as this one does: tonic's routes are an axum `Router`, and that is an app.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::http::{Request as HttpRequest, Response as HttpResponse};
use futures_util::{Stream, StreamExt};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

mod messages;

use messages::{HelloReply, HelloRequest};

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

fn greet(request: &HelloRequest) -> Result<HelloReply, Status> {
    if request.name.is_empty() {
        return Err(Status::invalid_argument("nobody to greet"));
    }
    Ok(HelloReply { message: format!("Hello {}!", request.name) })
}

#[derive(Clone)]
struct Greeter;

impl UnaryService<HelloRequest> for Greeter {
    type Response = HelloReply;
    type Future = Answer<Response<HelloReply>>;

    fn call(&mut self, request: Request<HelloRequest>) -> Self::Future {
        Box::pin(async move {
            tokio::task::yield_now().await;
            greet(request.get_ref()).map(Response::new)
        })
    }
}

impl StreamingService<HelloRequest> for Greeter {
    type Response = HelloReply;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;
    type Future = Answer<Response<Self::ResponseStream>>;

    fn call(&mut self, request: Request<Streaming<HelloRequest>>) -> Self::Future {
        let replies = request.into_inner().map(|request| greet(&request?));
        Box::pin(async move { Ok(Response::new(Box::pin(replies) as Self::ResponseStream)) })
    }
}

impl NamedService for Greeter {
    const NAME: &'static str = "helloworld.Greeter";
}

impl tower_service::Service<HttpRequest<tonic::body::Body>> for Greeter {
    type Response = HttpResponse<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<tonic::body::Body>) -> Self::Future {
        let greeter = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<HelloReply, HelloRequest>::default());
            Ok(match request.uri().path() {
                "/helloworld.Greeter/SayHello" => grpc.unary(greeter, request).await,
                "/helloworld.Greeter/Chat" => grpc.streaming(greeter, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

fn router() -> Router {
    Routes::new(Greeter).into_axum_router()
}

app_abi::export_axum!(router);
