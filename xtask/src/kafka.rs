//! A real Kafka for the tests: the jars from Maven Central, one KRaft node on the loopback interface, gone when we are.

use crate::process::{self, Daemon};
use anyhow::{Context, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;
use tempfile::TempDir;

const VERSION: &str = "4.1.0";
/// Kafka's artifact logs nothing without a backend of the version its slf4j-api has.
const SLF4J: &str = "1.7.36";
const INSTALL: &str = "apt-get install -y default-jre-headless maven";
const START: Duration = Duration::from_secs(60);

/// Where a broker lives. What is left out is chosen: free ports, and a folder that goes when the broker goes.
#[derive(Debug, Default, clap::Args)]
pub struct KafkaArgs {
    /// Keep the topics in this folder, and find them there at the next start
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Listen on this port
    #[arg(long)]
    port: Option<u16>,
    /// The port on which the broker talks to itself
    #[arg(long)]
    controller_port: Option<u16>,
    /// A further listener whose clients are sent to another port, that of a proxy in between
    #[arg(long = "listener", value_name = "NAME=PORT:ADVERTISED_PORT")]
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone)]
struct Listener {
    name: String,
    port: u16,
    advertised: u16,
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (name, ports) = text.split_once('=')?;
            let (port, advertised) = ports.split_once(':')?;
            Some(Listener { name: name.to_owned(), port: port.parse().ok()?, advertised: advertised.parse().ok()? })
        };
        parts().ok_or_else(|| "write it as NAME=PORT:ADVERTISED_PORT, for example W1=9093:9193".to_owned())
    }
}

/// A running broker.
pub struct Kafka {
    /// `127.0.0.1:PORT`.
    pub address: String,
    daemon: Daemon,
    _dir: Option<TempDir>,
}

/// `cargo xtask kafka`.
pub fn run_in_foreground(args: &KafkaArgs) -> anyhow::Result<bool> {
    let mut kafka = Kafka::start_with(args)?;
    println!("Kafka {VERSION} on {}; ctrl-c ends it", kafka.address);
    println!(
        "PAWL_TEST_KAFKA={} PAWL_TEST_PLUGINS={} cargo test",
        kafka.address,
        crate::target_dir().join("plugins").display()
    );
    loop {
        kafka.daemon.check()?;
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Kafka {
    /// Starts a broker with empty topics; brings the jars first if they are not there.
    pub fn start() -> anyhow::Result<Kafka> {
        Kafka::start_with(&KafkaArgs::default())
    }

    fn start_with(args: &KafkaArgs) -> anyhow::Result<Kafka> {
        let java = process::need("java", INSTALL)?;
        let libs = libs()?;
        let (dir, temporary) = match &args.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let dir = tempfile::Builder::new().prefix("pawl-kafka-").tempdir()?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        let free = free_ports()?;
        let (port, controller) = (args.port.unwrap_or(free.0), args.controller_port.unwrap_or(free.1));
        let properties = dir.join("server.properties");
        fs::write(&properties, settings(&dir, port, controller, &args.listeners))?;
        let classpath = format!("{}/*", libs.display());
        // There from the broker before, if there was one.
        if !dir.join("data/meta.properties").exists() {
            format_storage(&java, &classpath, &properties)?;
        }

        let log_path = dir.join("kafka.log");
        // Whatever a broker before wrote is not about this one.
        let begin = fs::metadata(&log_path).map_or(0, |log| log.len());
        let log = OpenOptions::new().create(true).append(true).open(&log_path)?;
        let mut command = Command::new(&java);
        command.args(["-Xmx512m", "-cp", &classpath, "kafka.Kafka"]).arg(&properties);
        command.stdout(log.try_clone()?).stderr(log);
        let mut daemon = Daemon::start("Kafka", &mut command)?;
        let address = format!("127.0.0.1:{port}");
        let started = process::wait_for("Kafka to start", START, || {
            daemon.check()?;
            let mut log = File::open(&log_path)?;
            log.seek(SeekFrom::Start(begin))?;
            let told =
                BufReader::new(log).lines().map_while(Result::ok).any(|line| line.contains("Kafka Server started"));
            Ok((told && TcpStream::connect(&address).is_ok()).then_some(()))
        });
        started.with_context(|| format!("Kafka's log: {}", fs::read_to_string(&log_path).unwrap_or_default()))?;
        Ok(Kafka { address, daemon, _dir: temporary })
    }
}

fn format_storage(java: &Path, classpath: &str, properties: &Path) -> anyhow::Result<()> {
    let mut format = Command::new(java);
    format.args(["-cp", classpath, "kafka.tools.StorageTool", "format", "-t", "cGF3bC10ZXN0LWNsdXN0ZQ", "-c"]);
    let formatted = format.arg(properties).output().context("can't run java")?;
    if !formatted.status.success() {
        bail!("Kafka could not format its storage: {}", String::from_utf8_lossy(&formatted.stderr));
    }
    Ok(())
}

fn settings(dir: &Path, port: u16, controller: u16, further: &[Listener]) -> String {
    let all = |of: fn(&Listener) -> String| further.iter().map(|l| format!(",{}", of(l))).collect::<String>();
    let listeners = all(|l| format!("{}://127.0.0.1:{}", l.name, l.port));
    let advertised = all(|l| format!("{}://127.0.0.1:{}", l.name, l.advertised));
    let protocols = all(|l| format!("{}:PLAINTEXT", l.name));
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={}
auto.create.topics.enable=false
num.partitions=4
message.max.bytes=8388608
group.min.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.heartbeat.interval.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=2097152
",
        dir.join("data").display()
    )
}

/// Two ports that were free just now.
fn free_ports() -> anyhow::Result<(u16, u16)> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

/// The folder with Kafka's jars.
fn libs() -> anyhow::Result<PathBuf> {
    let kafka = crate::target_dir().join("kafka");
    let libs = kafka.join(format!("libs-{VERSION}"));
    if libs.is_dir() {
        return Ok(libs);
    }
    let mvn = process::need("mvn", INSTALL)?;
    println!("bringing Kafka {VERSION} (43 MB)");
    fs::create_dir_all(&kafka)?;
    let dir = tempfile::Builder::new().prefix("libs-").tempdir_in(&kafka)?;
    let pom = dir.path().join("pom.xml");
    fs::write(
        &pom,
        format!(
            "<project><modelVersion>4.0.0</modelVersion><groupId>pawl</groupId><artifactId>kafka</artifactId><version>1</version>\
         <dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>\
         <version>{VERSION}</version></dependency>\
         <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J}</version></dependency>\
         </dependencies></project>"
        ),
    )?;
    let fresh = dir.path().join("libs");
    let mut copy = Command::new(mvn);
    copy.args(["-q", "-B", "-Dstyle.color=never", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .stdin(Stdio::null());
    process::succeed(copy.arg(format!("-DoutputDirectory={}", fresh.display())))?;
    // All jars or none.
    fs::rename(&fresh, &libs).with_context(|| format!("can't create {}", libs.display()))?;
    Ok(libs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_further_listener_are_sent_to_its_advertised_port() {
        let listener: Listener = "W1=9093:9193".parse().unwrap();
        let settings = settings(Path::new("/d"), 9092, 9091, &[listener]);
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9091,W1://127.0.0.1:9093",
            "advertised.listeners=PLAINTEXT://127.0.0.1:9092,W1://127.0.0.1:9193",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,W1:PLAINTEXT",
        ] {
            assert!(settings.lines().any(|l| l == line), "{line} is not in\n{settings}");
        }
        assert!("W1=9093".parse::<Listener>().unwrap_err().contains("NAME=PORT:ADVERTISED_PORT"));
    }
}
