//! One task per address: read, answer, send.

use std::sync::Arc;

use tokio::{net::UdpSocket, time::sleep};

use super::{Context, PAUSE, Transport, bump};

/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_535;

/// Serves until the task is aborted. No error on this socket is about more than one client, so none ends it.
pub(super) async fn serve(socket: UdpSocket, context: Arc<Context>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP message about an earlier reply; the next read is about the next datagram.
                tracing::debug!(%error, "receiving");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(reply) = context.answer(&buffer[..length], Transport::Udp) else {
            continue;
        };
        // Port 0 cannot be replied to (RFC 768).
        let sent = client.port() != 0 && socket.send_to(&reply, client).await.is_ok();
        if !sent {
            bump(&context.counters.send_errors);
        }
    }
}
