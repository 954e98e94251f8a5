//! A real Kafka for the tests: the jars from Maven Central, one KRaft node on the loopback interface, gone when we are.

use crate::process::{self, Daemon};
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const VERSION: &str = "4.1.0";
/// Kafka's artifact logs nothing without a backend of the version its slf4j-api has.
const SLF4J: &str = "1.7.36";
const INSTALL: &str = "apt-get install -y default-jre-headless maven";
const START: Duration = Duration::from_secs(60);

/// A running broker.
pub struct Kafka {
    /// `127.0.0.1:PORT`.
    pub address: String,
    daemon: Daemon,
    _dir: TempDir,
}

/// `cargo xtask kafka`.
pub fn run_in_foreground() -> anyhow::Result<bool> {
    let mut kafka = Kafka::start()?;
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
        let java = process::need("java", INSTALL)?;
        let libs = libs()?;
        let dir = tempfile::Builder::new().prefix("pawl-kafka-").tempdir()?;
        let (port, controller) = free_ports()?;
        let properties = dir.path().join("server.properties");
        fs::write(&properties, settings(dir.path(), port, controller))?;
        let classpath = format!("{}/*", libs.display());

        let mut format = Command::new(&java);
        format.args(["-cp", &classpath, "kafka.tools.StorageTool", "format", "-t", "cGF3bC10ZXN0LWNsdXN0ZQ", "-c"]);
        let formatted = format.arg(&properties).output().context("can't run java")?;
        if !formatted.status.success() {
            bail!("Kafka could not format its storage: {}", String::from_utf8_lossy(&formatted.stderr));
        }

        let log_path = dir.path().join("kafka.log");
        let log = File::create(&log_path)?;
        let mut command = Command::new(&java);
        command.args(["-Xmx512m", "-cp", &classpath, "kafka.Kafka"]).arg(&properties);
        command.stdout(log.try_clone()?).stderr(log);
        let mut daemon = Daemon::start("Kafka", &mut command)?;
        let address = format!("127.0.0.1:{port}");
        let started = process::wait_for("Kafka to start", START, || {
            daemon.check()?;
            let told = BufReader::new(File::open(&log_path)?)
                .lines()
                .map_while(Result::ok)
                .any(|line| line.contains("Kafka Server started"));
            Ok((told && TcpStream::connect(&address).is_ok()).then_some(()))
        });
        started.with_context(|| format!("Kafka's log: {}", fs::read_to_string(&log_path).unwrap_or_default()))?;
        Ok(Kafka { address, daemon, _dir: dir })
    }
}

fn settings(dir: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
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
