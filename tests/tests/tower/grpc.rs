//! gRPC by tonic's client, and trailers in both directions.

use std::convert::Infallible;

use app_host_tests::{App, Host, said};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::{begin_restart, site, within};

#[path = "../../../examples/grpc/src/messages.rs"]
mod messages;
use messages::{HelloReply, HelloRequest};

fn codec() -> ProstCodec<HelloRequest, HelloReply> {
    ProstCodec::default()
}

fn request(name: &str) -> HelloRequest {
    HelloRequest { name: name.to_owned() }
}

async fn greet(client: &mut Grpc<Channel>, name: &str) -> Result<String, tonic::Status> {
    within("the channel", client.ready()).await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static("/helloworld.Greeter/SayHello");
    let reply = within("the reply", client.unary(Request::new(request(name)), path, codec())).await?;
    Ok(reply.into_inner().message)
}

#[tokio::test(flavor = "multi_thread")]
async fn tonic_greeter_answers_unary_and_streaming_calls_over_a_restart() {
    let library = App::build().profile().join("libgrpc.so");
    let host = Host::new(&library).start();
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address().tcp())).unwrap();
    let mut client = Grpc::new(endpoint.connect_lazy());
    assert_eq!(greet(&mut client, "Ada").await.unwrap(), "Hello Ada!");
    // A status without a message comes in the trailers alone.
    let refused = greet(&mut client, "").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "nobody to greet"));

    // A stream in both directions, in lock step, with a restart in the middle.
    let (names, heard) = tokio::sync::mpsc::channel::<HelloRequest>(1);
    let heard = stream::unfold(heard, |mut heard| async { heard.recv().await.map(|name| (name, heard)) });
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/helloworld.Greeter/Chat");
    names.send(request("0")).await.unwrap();
    let mut replies =
        within("the stream", client.streaming(Request::new(heard), path, codec())).await.unwrap().into_inner();
    let mut restart = None;
    for number in 0..1000 {
        let reply = within("a reply", replies.next()).await.unwrap().unwrap();
        assert_eq!(reply.message, format!("Hello {number}!"));
        if number == 500 {
            host.install_fresh(&library);
            restart = Some(begin_restart(&host));
            // A call that the channel has not sent when the GOAWAY comes is handed back to its caller, and
            // the next one goes to another connection.
            let mut again = None;
            for _ in 0..3 {
                match greet(&mut client, "Grace").await {
                    Ok(reply) => {
                        again = Some(reply);
                        break;
                    }
                    Err(status) => assert_eq!(status.code(), Code::Cancelled, "{status:?}"),
                }
            }
            assert_eq!(again.as_deref(), Some("Hello Grace!"));
        }
        names.send(request(&(number + 1).to_string())).await.unwrap();
    }
    drop(names);
    assert_eq!(within("the last reply", replies.next()).await.unwrap().unwrap().message, "Hello 1000!");
    assert!(within("the status", replies.next()).await.is_none());
    assert_eq!(host.verdict(restart.unwrap()).verdict, "complete");
    assert!(host.lines_with(said::WORKER_EXITED).iter().all(|line| line.number("cut") == Some(0)));
    assert_eq!(greet(&mut client, "Ada").await.unwrap(), "Hello Ada!");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_in_both_directions() {
    let host = site().start();
    let stream = tokio::net::TcpStream::connect(host.address().tcp()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("4"));
    let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers.clone())];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let request = http::Request::post("http://test/trailers").body(body).unwrap();
    let answer = within("the answer", sender.send_request(request)).await.unwrap();
    let answer = within("the body", answer.into_body().collect()).await.unwrap();
    assert_eq!(answer.trailers(), Some(&trailers));
    assert_eq!(answer.to_bytes(), "body");
    drop(sender);
    within("the end", driver).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tonic_keeps_its_channel_s_connection_where_those_of_http_2_move() {
    const RESTARTS: u64 = 5;
    let host = Host::new(&App::build().profile().join("libgrpc.so"));
    let host = host.with("/restart/http2", "move").with("/admin", "127.0.0.1:0").start();
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address().tcp())).unwrap();
    let mut client = Grpc::new(endpoint.connect_lazy());
    assert_eq!(greet(&mut client, "Ada").await.unwrap(), "Hello Ada!");
    let restarting = tokio::task::spawn_blocking(move || {
        (0..RESTARTS).for_each(|_| drop(host.restart_completes()));
        host
    });
    let mut number = 0;
    while !restarting.is_finished() {
        number += 1;
        let name = number.to_string().repeat(number % 20 + 1);
        assert_eq!(greet(&mut client, &name).await.unwrap(), format!("Hello {name}!"));
        // Its status comes in trailers alone.
        assert_eq!(greet(&mut client, "").await.unwrap_err().code(), Code::InvalidArgument);
    }
    let host = restarting.await.unwrap();
    assert_eq!(greet(&mut client, "Grace").await.unwrap(), "Hello Grace!");
    tokio::task::spawn_blocking(move || {
        host.wait("the last move", || {
            (host.metrics().count("http2_connections_moved_total") == RESTARTS).then_some(())
        });
        assert_eq!(host.metrics().count("connections_accepted_total"), 1);
    })
    .await
    .unwrap();
}
