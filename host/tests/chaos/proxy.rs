//! A TCP proxy between a worker and what it talks to, which can be cut, stalled and delayed while it runs.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// Connections are closed, and new ones as soon as they come.
    Cut,
    /// Connections stay, and nothing comes through; it comes later.
    Stall,
    /// Every piece comes so much later.
    Delay(Duration),
}

/// A listening proxy; it goes with its connections when it is dropped.
pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own for connections to `target`.
    pub fn start(runtime: &Handle, listener: std::net::TcpListener, target: u16) -> Proxy {
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (mode, modes) = watch::channel(Mode::Open);
        let accepting = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                tokio::spawn(connection(client, target, modes.clone()));
            }
        });
        Proxy { port, mode, accepting }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

async fn connection(mut client: TcpStream, target: u16, mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let connected = async {
        let Ok(mut server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // When one side is gone the other has nobody to talk to.
        tokio::select! {
            () = pump(from_client, to_server, mode.clone()) => {}
            () = pump(from_server, to_client, mode) => {}
        }
    };
    tokio::select! {
        () = connected => {}
        // An error: the proxy is gone.
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        loop {
            let now = *mode.borrow_and_update();
            match now {
                Mode::Open => break,
                Mode::Cut => return,
                Mode::Stall => {
                    if mode.changed().await.is_err() {
                        return;
                    }
                }
                // What waits goes on at once when the delay is lifted.
                Mode::Delay(delay) => match tokio::time::timeout(delay, mode.changed()).await {
                    Err(_waited) => break,
                    Ok(Err(_gone)) => return,
                    Ok(Ok(())) => {}
                },
            }
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
