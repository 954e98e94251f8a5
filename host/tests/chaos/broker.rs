//! The real Kafka as a process that can be killed and comes back on the same ports with the same topics.

use super::support::{dies_with_us, setting, wait_for};
use std::fs::OpenOptions;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts that end before the broker serves.
const MOST_FAILURES: usize = 3;

pub struct Broker {
    pub address: String,
    command: Command,
    child: Option<Child>,
    failures: usize,
    log: String,
}

impl Broker {
    /// `listeners` are ports and the ports of the proxies in front of them.
    pub fn start(dir: &Path, port: u16, controller: u16, listeners: &[(u16, u16)]) -> Broker {
        let log = dir.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(setting("PAWL_TEST_XTASK"));
        command
            .args(["kafka", "--port", &port.to_string(), "--controller-port", &controller.to_string(), "--dir"])
            .arg(dir);
        for (n, (port, advertised)) in listeners.iter().enumerate() {
            command.arg("--listener").arg(format!("W{n}={port}:{advertised}"));
        }
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        dies_with_us(&mut command);
        let address = format!("127.0.0.1:{port}");
        let mut broker = Broker { address, command, child: None, failures: 0, log: log.display().to_string() };
        broker.restart();
        broker
    }

    /// Starts it if it does not run. It serves some seconds later.
    pub fn restart(&mut self) {
        if self.child.is_none() {
            self.child = Some(self.command.spawn().unwrap());
        }
    }

    /// SIGKILL to the process that holds the broker, which takes the broker with it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            wait_for("the broker to be gone", || (!self.serves()).then_some(()));
        }
    }

    pub fn is_up(&self) -> bool {
        self.child.is_some() && self.serves()
    }

    pub fn wait(&mut self) {
        wait_for("the broker to serve", || {
            self.look();
            self.is_up().then_some(())
        });
    }

    /// Starts it again if it has ended by itself: that is no fault of what is tested.
    pub fn look(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
            self.failures += 1;
            eprintln!("chaos: the broker has ended by itself: {status}; see {}", self.log);
            assert!(
                self.failures < MOST_FAILURES,
                "the broker does not stay up; see {} and kafka/kafka.log beside it",
                self.log
            );
            self.child = None;
            self.restart();
        }
    }

    fn serves(&self) -> bool {
        TcpStream::connect(&self.address).is_ok()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
