//! Serves one client from the moment that its connection was accepted, in whichever worker: the handshake, where there is
//! TLS, then HTTP, and what becomes of a connection that leaves.

use std::sync::Arc;
use std::time::Instant;

use app_host_services::loader::Connection;
use app_host_tls::TlsServer;

use crate::accept::ConnectionContext;
use crate::connection::{self, Suspended};
use crate::detach_queue::{detach, leave_unshaken};
use crate::serving::Connected;
use crate::stream::{Socket as Movable, Stream};
use crate::tls::{self, Shaken, Unshaken};

/// What the host knows of a connection for as long as it is open, in whichever worker.
#[derive(Clone, Debug)]
pub(super) struct ConnectionMeta {
    pub(super) connection: Arc<Connection>,
    pub(super) opened: Instant,
}

/// Shakes hands with a client, and serves it as [`serve`] does. `read` was read of it before, by another worker.
pub(super) async fn serve_encrypted<S: Movable>(
    mut stream: Stream<S>,
    read: Vec<u8>,
    server: TlsServer,
    mut meta: ConnectionMeta,
    context: ConnectionContext,
) {
    context.stats.opened();
    let shaken = tls::shake(&mut stream, &server, read, &mut context.drain.clone()).await;
    context.stats.closed();
    let Connection { peer, listener, .. } = *meta.connection;
    match shaken {
        Ok(Shaken { layer, info, resumed }) => {
            context.stats.shook(resumed);
            let connection = Connection { tls: Some(info), ..Connection::clone(&meta.connection) };
            meta.connection = Arc::new(connection);
            serve(Suspended::accepted(stream.encrypted(layer)), meta, context).await;
        }
        Err(Unshaken::Leaves(read)) => leave_unshaken(stream, read, &meta, context),
        Err(Unshaken::Gone) => {}
        Err(Unshaken::Failed(error)) => {
            context.stats.handshake_failed();
            if let Some(access) = &context.access {
                access.refused(peer, listener, "handshake failed", &error);
            }
            tracing::debug!(listener, error, "handshake failed");
        }
    }
}

/// Serves a connection until it ends, moves to another worker, or is parked.
pub(super) async fn serve<S: Movable>(
    connection: Suspended<Stream<S>>,
    meta: ConnectionMeta,
    context: ConnectionContext,
) {
    let connected = Connected { app: context.app, connection: Arc::clone(&meta.connection) };
    let Connection { peer, listener, .. } = *meta.connection;
    let log = context.access.as_ref().map(|access| access.connection(peer, listener));
    let leaving = connection::serve_connection(connection, connected, context.stats, context.drain.clone(), log).await;
    if let Some(leaving) = leaving {
        detach(leaving, &meta, context);
    }
}
