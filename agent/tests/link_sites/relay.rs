//! The path between two sites: forwards datagrams until it is cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinHandle};

pub struct Relay {
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Forwards between `target` and whoever else sends to `address`.
    pub async fn to(target: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let severed = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            let mut near = None;
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let to = if from == target { near } else { near.replace(from).and(None).or(Some(target)) };
                if let Some(to) = to.filter(|_| !severed.load(Ordering::Relaxed)) {
                    let _ = socket.send_to(&buffer[..length], to).await;
                }
            }
        });
        Self { address, cut, task }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
