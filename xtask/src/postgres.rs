//! A real PostgreSQL for the tests: a server of its own on the loopback interface, with TLS, gone when we are.

use crate::process::{self, Daemon};
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const INSTALL: &str = "apt-get install -y postgresql";
const INSTALL_OPENSSL: &str = "apt-get install -y openssl";
/// Where Debian puts what is not on PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(5);

/// A running server.
pub struct Postgres {
    /// With the database `postgres`, whose owner needs no password.
    pub url: String,
    /// The certificate of who signed the server's.
    pub authority: PathBuf,
    daemon: Daemon,
    _dir: TempDir,
}

/// `cargo xtask postgres`.
pub fn run_in_foreground() -> anyhow::Result<bool> {
    let mut postgres = Postgres::start()?;
    println!("PostgreSQL on {}; ctrl-c ends it", postgres.url);
    println!("PAWL_TEST_POSTGRES={} PAWL_TEST_POSTGRES_CA={} cargo test", postgres.url, postgres.authority.display());
    loop {
        postgres.daemon.check()?;
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Postgres {
    /// Starts an empty server.
    pub fn start() -> anyhow::Result<Postgres> {
        let (initdb, server) = (program("initdb")?, program("postgres")?);
        let user = User::find()?;
        let dir = tempfile::Builder::new().prefix("pawl-postgres-").tempdir()?;
        user.give(dir.path())?;
        let data = dir.path().join("data");
        let mut init = user.command(&initdb);
        init.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data);
        output("initdb", &mut init)?;
        let authority = certificates(dir.path(), &user)?;

        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log_path = dir.path().join("postgres.log");
        let log = File::create(&log_path)?;
        let mut command = user.command(&server);
        command.arg("-D").arg(&data).args(settings(dir.path(), port));
        command.stdout(log.try_clone()?).stderr(log);
        let mut daemon = Daemon::start("PostgreSQL", &mut command)?;
        let started = process::wait_for("PostgreSQL to start", START, || {
            daemon.check()?;
            let told = fs::read_to_string(&log_path)?.contains("ready to accept connections");
            Ok((told && TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(()))
        });
        started.with_context(|| format!("PostgreSQL's log: {}", fs::read_to_string(&log_path).unwrap_or_default()))?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Ok(Postgres { url, authority, daemon, _dir: dir })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed, it would leave a segment of shared memory behind.
        self.daemon.stop(STOP);
    }
}

fn settings(dir: &Path, port: u16) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    let settings = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        ("unix_socket_directories", String::new()),
        ("max_connections", "200".to_owned()),
        // Nothing in /dev/shm, and a power failure would take the tests too.
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("fsync", "off".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", path("server.pem")),
        ("ssl_key_file", path("server.key")),
    ];
    settings.into_iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect()
}

/// An authority, and the server's key with a certificate that it signed; answers the authority's certificate.
fn certificates(dir: &Path, user: &User) -> anyhow::Result<PathBuf> {
    let openssl = process::need("openssl", INSTALL_OPENSSL)?;
    let run = |words: &[&str]| {
        let mut command = Command::new(&openssl);
        output("openssl", command.args(words).current_dir(dir))
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-days", "30", "-subj", "/CN=pawl tests", "-keyout", "ca.key", "-out", "ca.pem"];
    run(&[&authority[..], &key].concat())?;
    let request = ["req", "-new", "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"];
    run(&[&request[..], &key].concat())?;
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")?;
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    run(&[&sign[..], &["-days", "30", "-extfile", "names", "-out", "server.pem"]].concat())?;
    let key = dir.join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    user.give(&key)?;
    Ok(dir.join("ca.pem"))
}

/// Who runs the server: it refuses to run as root.
struct User(Option<(u32, u32)>);

impl User {
    fn find() -> anyhow::Result<User> {
        if !process::is_root() {
            return Ok(User(None));
        }
        let users = fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
        let of = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map(str::parse);
            Some((ids.next()?.ok()?, ids.next()?.ok()?))
        };
        match of("postgres").or_else(|| of("nobody")) {
            Some(ids) => Ok(User(Some(ids))),
            None => {
                bail!("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`: {INSTALL}")
            }
        }
    }

    fn give(&self, path: &Path) -> anyhow::Result<()> {
        match self.0 {
            Some((user, group)) => {
                chown(path, Some(user), Some(group)).with_context(|| format!("can't give away {}", path.display()))
            }
            None => Ok(()),
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Where it may be.
        command.current_dir("/");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}

/// On PATH, or the newest of Debian's.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(found) = process::find(name) {
        return Ok(found);
    }
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    found.sort();
    match found.pop() {
        Some((_, path)) => Ok(path),
        None => process::need(name, INSTALL),
    }
}

fn output(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
