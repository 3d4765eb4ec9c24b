//! Dispatch across the line, with a socket whose other end plays the master.

use std::os::fd::{AsFd, OwnedFd};

use app_abi::PublishError;

use app_host_core::dispatch::wire::{self, Publisher};

use super::*;

struct Talker(Host);

impl App for Talker {
    async fn start(host: Host) -> Result<Self, StartError> {
        Ok(Self(host))
    }

    async fn call(&self, request: Request<AppSideBody>) -> Response<AppSideBody> {
        let host = self.0;
        let answer = match request.uri().path() {
            "/errors" => format!(
                "{:?} {:?} {:?}",
                host.publish("", "x"),
                host.publish("t", vec![0; 65_537]),
                host.subscribe(&"x".repeat(256)).map(|_| ())
            ),
            "/full" => {
                let full = (0..1_000_000).find_map(|_| host.publish("t", [0; 1000]).err());
                format!("{}", matches!(full, Some(PublishError::Full(_))))
            }
            _ => {
                let mut subscription = host.subscribe("t").unwrap();
                host.publish("t", b"subscribed").unwrap();
                let mut lines = String::new();
                while let Some(heard) = subscription.next().await {
                    lines.extend([format!("{heard:?}"), "\n".to_owned()]);
                }
                format!("{lines}{:?} {:?}", subscription.next().await, host.publish("t", "late"))
            }
        };
        Response::new(answer.into())
    }
}

async fn talker() -> (LoadedApp, OwnedFd) {
    static HEADER: LibHeader = export::header::<Talker, export::Plain>();
    let library = check(&HEADER).expect("an app of this very build fits");
    let (master, socket) = packet::pair().unwrap();
    let info = HostInfo { dispatch: Dispatch::open(socket).unwrap(), ..info("") };
    (library.start(info).await.expect("the app starts"), master)
}

#[tokio::test]
async fn messages_losses_and_the_end_cross_the_line() {
    let (app, master) = talker().await;
    let call = tokio::spawn(app.call(get("/"), connection(), Offers::default()));
    let socket = packet::Socket::new(master.try_clone().unwrap()).unwrap();
    let length = socket.receive_plain(&mut vec![0; wire::MAX_PACKET]).await.unwrap();
    assert!(length > 0);
    let mut packet = wire::message("t", b"heard").to_vec();
    let packet = wire::stamp(&mut packet, Publisher { slot: 8, generation: 9 }).unwrap();
    packet::send(master.as_fd(), &packet, &[]).unwrap();
    packet::send(master.as_fd(), &wire::lost("t", 3), &[]).unwrap();
    drop((master, socket));
    assert_eq!(
        text(call.await.unwrap().unwrap()).await,
        "Ok(Message { topic: \"t\", bytes: b\"heard\", slot: 8, generation: 9 })\n\
         Err(Lost { count: 3 })\n\
         None Err(Unavailable(\"the master that carries messages has gone\"))"
    );
}

#[tokio::test]
async fn faults_of_dispatch_cross_the_line() {
    let (app, _master) = talker().await;
    assert_eq!(
        text(app.call(get("/errors"), connection(), Offers::default()).await.unwrap()).await,
        "Err(Invalid(\"a topic has from 1 to 255 bytes, this one has 0\")) \
         Err(Invalid(\"a message has at most 65536 bytes, this one has 65537\")) \
         Err(Invalid(\"a topic has from 1 to 255 bytes, this one has 256\"))"
    );
    assert_eq!(text(app.call(get("/full"), connection(), Offers::default()).await.unwrap()).await, "true");
}
