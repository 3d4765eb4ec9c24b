//! Serves one client from the moment that its connection was accepted, in whichever worker: what a proxy says of it, where
//! one has to, the handshake, where there is TLS, then HTTP, and what becomes of a connection that leaves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use app_host_core::config::Peers;
use app_host_core::refused::Refused;
use app_host_services::loader::{Address, Client, Connection};

use crate::addresses::Permit;
use crate::connection::{self, Suspended};
use crate::context::{ConnectionContext, ListenerRules, Opened, ThreadContext};
use crate::detach_queue::{detach, leave_unannounced, leave_unshaken};
use crate::proxy_protocol::header::Header;
use crate::proxy_protocol::{self, Unannounced};
use crate::serving::Connected;
use crate::stream::{Socket as Movable, Stream};
use crate::tls::{self, Shaken, Unshaken};

/// What the host knows of a connection for as long as it is open, in whichever worker.
#[derive(Debug)]
pub(super) struct ConnectionMeta {
    pub(super) connection: Arc<Connection>,
    pub(super) opened: Instant,
    /// Its client's, if connections are counted by client.
    pub(super) permit: Option<Box<Permit>>,
    pub(super) _open: Opened,
}

/// Serves a client that has just been accepted, if it may have one more connection.
pub(super) fn begin<S: Movable>(stream: Stream<S>, connection: Connection, context: ConnectionContext) {
    let Ok(permit) = admit(&connection, &context) else { return };
    let open = Opened::new(context.thread.stats);
    let meta = ConnectionMeta { connection: Arc::new(connection), opened: Instant::now(), permit, _open: open };
    // Boxed, so that the future of a plain connection has room for neither.
    if context.listener.peers.proxy_protocol.is_some() {
        tokio::spawn(Box::pin(serve_announced(stream, Vec::new(), meta, context)));
    } else if context.listener.tls.is_some() {
        tokio::spawn(Box::pin(serve_encrypted(stream, Vec::new(), meta, context)));
    } else {
        tokio::spawn(serve(Suspended::accepted(stream), meta, context));
    }
}

/// A client that has as many connections as it may, and has been refused.
struct TooMany;

/// Counts a new connection for its client, if connections are counted.
fn admit(connection: &Connection, context: &ConnectionContext) -> Result<Option<Box<Permit>>, TooMany> {
    let Some(addresses) = &context.thread.addresses else { return Ok(None) };
    let Some(address) = counted_for(connection, &context.listener.peers) else { return Ok(None) };
    let permit = addresses.admit(address);
    if permit.is_none() {
        let detail = "the client has as many connections as \"max_per_address\" says";
        context.refuse(connection.peer, Refused::TooManyConnections, detail);
    }
    permit.map(Some).ok_or(TooMany)
}

/// Counts a connection of another worker for its client, however many that one has.
pub(super) fn adopt(connection: &Connection, context: &ThreadContext, listener: &ListenerRules) -> Option<Box<Permit>> {
    context.addresses.as_ref()?.adopt(counted_for(connection, &listener.peers)?)
}

/// Whose connection it is, if it is that of one client: trusted proxies have those of many.
fn counted_for(connection: &Connection, peers: &Peers) -> Option<IpAddr> {
    match &connection.client {
        Some(client) => address_of(client.address),
        None => address_of(connection.peer).filter(|address| !peers.trust(Some(*address))),
    }
}

/// Waits for what the peer says of its client, if it is trusted, and serves the client. `read` was read before, by another
/// worker.
pub(super) async fn serve_announced<S: Movable>(
    mut stream: Stream<S>,
    read: Vec<u8>,
    mut meta: ConnectionMeta,
    context: ConnectionContext,
) {
    let peer = meta.connection.peer;
    if !context.listener.peers.trust(address_of(peer)) {
        let detail = "\"trusted_peers\" of the listener has no such address";
        return context.refuse(peer, Refused::UntrustedPeer, detail);
    }
    let told = proxy_protocol::receive(&mut stream, read, meta.opened, &mut context.drain.clone()).await;
    let read = match told {
        Ok((header, read)) => {
            if let Some(client) = client(header) {
                let connection = Connection { client: Some(client), ..Connection::clone(&meta.connection) };
                let Ok(permit) = admit(&connection, &context) else { return };
                (meta.connection, meta.permit) = (Arc::new(connection), permit);
            }
            read
        }
        Err(Unannounced::Leaves(read)) => return leave_unannounced(stream, read, meta, context),
        Err(Unannounced::Dismissed) => return context.thread.stats.dismissed(),
        Err(Unannounced::Gone) => return,
        Err(Unannounced::Refused(error)) => {
            return context.refuse(peer, Refused::BadProxyHeader, &error.to_string());
        }
    };
    if context.listener.tls.is_some() {
        serve_encrypted(stream, read, meta, context).await;
    } else {
        let opened = meta.opened;
        serve(Suspended { opened, unread: read.into(), ..Suspended::accepted(stream) }, meta, context).await;
    }
}

/// The client of which a header tells, if it tells of one.
fn client(header: Header) -> Option<Arc<Client>> {
    let Header { client, tls } = header;
    let encrypted = tls.as_ref().is_some_and(|tls| tls.ends_there);
    client.map(|address| Arc::new(Client { address, encrypted, host: None, tls: tls.map(Arc::from) }))
}

/// The IP address, if there is one.
pub(super) fn address_of(address: Address) -> Option<IpAddr> {
    match address {
        Address::Tcp(address) => Some(address.ip()),
        Address::Unix => None,
    }
}

/// Shakes hands with a client, and serves it as [`serve`] does. `read` was read of it before, by another worker.
pub(super) async fn serve_encrypted<S: Movable>(
    mut stream: Stream<S>,
    read: Vec<u8>,
    mut meta: ConnectionMeta,
    context: ConnectionContext,
) {
    let Some(server) = &context.listener.tls else { return };
    let shaken = tls::shake(&mut stream, server, read, &mut context.drain.clone(), context.thread.limits).await;
    match shaken {
        Ok(Shaken { layer, info, resumed }) => {
            context.thread.stats.shook(resumed);
            let client = meta.connection.client.as_deref();
            // Whatever its proxy has seen of it: the client speaks TLS.
            let client = client.map(|client| Arc::new(Client { encrypted: true, ..client.clone() }));
            let connection = Connection { tls: Some(info), client, ..Connection::clone(&meta.connection) };
            meta.connection = Arc::new(connection);
            let connection = Suspended { opened: meta.opened, ..Suspended::accepted(stream.encrypted(layer)) };
            serve(connection, meta, context).await;
        }
        Err(Unshaken::Leaves(read)) => leave_unshaken(stream, read, meta, context),
        Err(Unshaken::Gone) => {}
        Err(Unshaken::Failed(error)) => {
            context.thread.stats.handshake_failed();
            context.refuse(meta.connection.peer, Refused::HandshakeFailed, &error);
            tracing::debug!(listener = context.listener.name, error, "handshake failed");
        }
    }
}

/// Serves a connection until it ends, moves to another worker, or is parked.
pub(super) async fn serve<S: Movable>(
    connection: Suspended<Stream<S>>,
    meta: ConnectionMeta,
    context: ConnectionContext,
) {
    let ConnectionContext { thread, listener, drain, .. } = &context;
    let connected =
        Connected { app: thread.app, connection: Arc::clone(&meta.connection), listener: Arc::clone(listener) };
    let log = thread.access.as_ref().map(|access| access.connection(&meta.connection));
    let (stats, limits, drain) = (thread.stats, thread.limits, drain.clone());
    let serving = connection::serve_connection(connection, connected, stats, drain, log, limits);
    if let Some(leaving) = serving.await {
        detach(leaving, meta, context);
    }
}
